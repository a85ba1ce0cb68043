/*-------------------------------------------------------------------------
 *
 * eviction.cpp
 *		Which policy keeps what will be asked for again?
 *
 * Replays generated traces against the memory tier's store as it is shipped and
 * against LRU, CLOCK and SIEVE with room for as many entries.  The generator is
 * deterministic:
 *
 *	zipf a		keys of a universe, the k-th as often as 1 / k^a
 *	scan		zipf 0.9; every 20,000 requests a run over 10,000 keys never seen before or after
 *	loop n		n times the room, round and round
 *	loops		zipf 0.9, half of the requests from a loop of twice the room
 *	mixed		zipf 0.9 whose popular keys change every tenth, with scans and loops
 *
 * Prints hit ratios; exits with 1 when the store is below the better of LRU and
 * CLOCK somewhere by more than a thousandth.
 *
 *-------------------------------------------------------------------------
 */
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <list>
#include <memory>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/tier/store.hpp"

using namespace cache_ext::tier;

namespace {

using Trace = std::vector<uint32_t>;

constexpr size_t kRequests = 1000000;
constexpr uint32_t kUniverse = 100000;
constexpr uint32_t kScanned = 1U << 30; /* keys from here on are seen once */
constexpr uint32_t kLooped = 1U << 29;

/* -------------------------------------------------------------------------
 * Traces
 * -------------------------------------------------------------------------
 */

class Zipf
{
  public:
	Zipf(double exponent, uint32_t universe) : sums_(universe)
	{
		double sum = 0;

		for (uint32_t i = 0; i < universe; ++i)
			sums_[i] = sum += 1.0 / std::pow(i + 1, exponent);
	}

	uint32_t draw(std::mt19937_64 &random) const
	{
		double at = std::uniform_real_distribution<double>(0, sums_.back())(random);

		return static_cast<uint32_t>(std::lower_bound(sums_.begin(), sums_.end(), at) -
		                             sums_.begin());
	}

  private:
	std::vector<double> sums_;
};

Trace
zipf(double exponent)
{
	std::mt19937_64 random(1);
	Zipf keys(exponent, kUniverse);
	Trace trace(kRequests);

	for (uint32_t &key : trace)
		key = keys.draw(random);
	return trace;
}

Trace
scans()
{
	std::mt19937_64 random(2);
	Zipf keys(0.9, kUniverse);
	Trace trace;
	uint32_t scanned = kScanned;

	while (trace.size() < kRequests)
	{
		for (int i = 0; i < 20000; ++i)
			trace.push_back(keys.draw(random));
		for (int i = 0; i < 10000; ++i)
			trace.push_back(scanned++);
	}
	return trace;
}

Trace
loop(uint32_t length)
{
	Trace trace(kRequests);

	for (size_t i = 0; i < trace.size(); ++i)
		trace[i] = kLooped + static_cast<uint32_t>(i % length);
	return trace;
}

Trace
loops(uint32_t length)
{
	std::mt19937_64 random(3);
	Zipf keys(0.9, kUniverse);
	Trace trace(kRequests);
	uint32_t at = 0;

	for (uint32_t &key : trace)
		key = random() % 2 == 0 ? keys.draw(random) : kLooped + at++ % length;
	return trace;
}

Trace
mixed(uint32_t length)
{
	std::mt19937_64 random(4);
	Zipf keys(0.9, kUniverse);
	Trace trace;
	uint32_t scanned = kScanned;
	uint32_t at = 0;

	while (trace.size() < kRequests)
	{
		auto shift = static_cast<uint32_t>(trace.size() / (kRequests / 10) * 1000);
		uint64_t kind = random() % 10;

		for (int i = 0; i < 1000; ++i)
			if (kind == 0)
				trace.push_back(scanned++);
			else if (kind == 1)
				trace.push_back(kLooped + at++ % length);
			else
				trace.push_back((keys.draw(random) + shift) % kUniverse);
	}
	return trace;
}

/* -------------------------------------------------------------------------
 * Policies: each says of a request whether it was a hit, and admits it
 * -------------------------------------------------------------------------
 */

class Lru
{
  public:
	explicit Lru(size_t room) : room_(room) {}

	bool operator()(uint32_t key)
	{
		auto found = places_.find(key);

		if (found != places_.end())
		{
			order_.splice(order_.begin(), order_, found->second);
			return true;
		}
		if (places_.size() == room_)
		{
			places_.erase(order_.back());
			order_.pop_back();
		}
		order_.push_front(key);
		places_[key] = order_.begin();
		return false;
	}

  private:
	size_t room_;
	std::list<uint32_t> order_;
	std::unordered_map<uint32_t, std::list<uint32_t>::iterator> places_;
};

class Clock
{
  public:
	explicit Clock(size_t room) : room_(room) {}

	bool operator()(uint32_t key)
	{
		auto found = places_.find(key);

		if (found != places_.end())
		{
			used_[found->second] = true;
			return true;
		}
		if (keys_.size() < room_)
		{
			places_[key] = keys_.size();
			keys_.push_back(key);
			used_.push_back(false);
			return false;
		}
		while (used_[hand_])
		{
			used_[hand_] = false;
			hand_ = (hand_ + 1) % room_;
		}
		places_.erase(keys_[hand_]);
		places_[key] = hand_;
		keys_[hand_] = key;
		hand_ = (hand_ + 1) % room_;
		return false;
	}

  private:
	size_t room_;
	size_t hand_ = 0;
	std::vector<uint32_t> keys_;
	std::vector<bool> used_;
	std::unordered_map<uint32_t, size_t> places_;
};

/* Zhang et al., "SIEVE is simpler than LRU", NSDI 2024. */
class Sieve
{
  public:
	explicit Sieve(size_t room) : room_(room) { hand_ = order_.end(); }

	bool operator()(uint32_t key)
	{
		auto found = places_.find(key);

		if (found != places_.end())
		{
			found->second->used = true;
			return true;
		}
		if (places_.size() == room_)
			evict();
		order_.push_front({key, false});
		places_[key] = order_.begin();
		return false;
	}

  private:
	struct Node
	{
		uint32_t key;
		bool used;
	};

	void evict()
	{
		auto at = hand_ == order_.end() ? std::prev(order_.end()) : hand_;

		while (at->used)
		{
			at->used = false;
			at = at == order_.begin() ? std::prev(order_.end()) : std::prev(at);
		}
		hand_ = at == order_.begin() ? order_.end() : std::prev(at);
		places_.erase(at->key);
		order_.erase(at);
	}

	size_t room_;
	std::list<Node> order_;
	std::list<Node>::iterator hand_;
	std::unordered_map<uint32_t, std::list<Node>::iterator> places_;
};

/* The store itself, with values that make each entry two chunks. */
class Ours
{
  public:
	explicit Ours(size_t bytes)
	    : region_(std::aligned_alloc(kChunkBytes, bytes)),
	      generations_(std::make_unique<Generations>())
	{
		Store::format(region_, bytes);
		store_ = std::make_unique<Store>(region_);
	}
	~Ours() { std::free(region_); }
	Ours(const Ours &) = delete;
	Ours &operator=(const Ours &) = delete;

	size_t room() const { return store_->capacity_chunks() / 2; }

	bool operator()(uint32_t key)
	{
		std::string_view name(reinterpret_cast<const char *>(&key), sizeof(key));
		uint32_t number = store_->find(0, name);

		if (number != kNone)
		{
			store_->note_hit(number);
			return true;
		}

		NewEntry entry{};

		entry.key = name;
		entry.value = std::string_view(value_, sizeof(value_));
		entry.facts.expires_at = entry.facts.keep_until = 1;
		if (!store_->put(entry, *generations_, 0))
			std::abort();
		return false;
	}

  private:
	void *region_;
	std::unique_ptr<Generations> generations_;
	std::unique_ptr<Store> store_;
	char value_[100] = {};
};

template <typename Policy>
double
hit_ratio(const Trace &trace, Policy &&request)
{
	size_t hits = 0;

	for (uint32_t key : trace)
		hits += request(key);
	return static_cast<double>(hits) / static_cast<double>(trace.size());
}

} /* namespace */

int
main()
{
	int below = 0;

	for (size_t bytes : {400 * 1024, 2 * 1024 * 1024, 8 * 1024 * 1024})
	{
		size_t room = Ours(bytes).room();
		auto room32 = static_cast<uint32_t>(room);
		std::vector<std::pair<std::string, Trace>> traces;

		for (int tenths = 7; tenths <= 11; ++tenths)
			traces.emplace_back("zipf " + std::to_string(tenths / 10) + "." +
			                        std::to_string(tenths % 10),
			                    zipf(tenths / 10.0));
		traces.emplace_back("scan", scans());
		traces.emplace_back("loop 0.9", loop(room32 / 10 * 9));
		traces.emplace_back("loop 1.1", loop(room32 / 10 * 11));
		traces.emplace_back("loop 2", loop(room32 * 2));
		traces.emplace_back("loops", loops(room32 * 2));
		traces.emplace_back("mixed", mixed(room32 / 2));
		printf("room for %zu entries\n", room);
		printf("  %-10s %8s %8s %8s %8s\n", "trace", "ours", "LRU", "CLOCK", "SIEVE");
		for (const auto &[name, trace] : traces)
		{
			Ours store(bytes);
			Sieve other(room);
			double ours = hit_ratio(trace, store);
			double lru = hit_ratio(trace, Lru(room));
			double clock = hit_ratio(trace, Clock(room));
			double sieve = hit_ratio(trace, other);
			bool good = ours >= std::max(lru, clock) - 0.001;

			printf("  %-10s %8.4f %8.4f %8.4f %8.4f%s\n", name.c_str(), ours, lru, clock, sieve,
			       good ? "" : "  below");
			below += !good;
		}
	}
	return below == 0 ? 0 : 1;
}
