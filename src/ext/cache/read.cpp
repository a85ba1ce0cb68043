/*-------------------------------------------------------------------------
 *
 * read.cpp
 *		What a transaction may see and store; see read.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include <new>
#include <optional>
#include <vector>

#include "ext/cache/audience.hpp"
#include "ext/cache/cache.hpp"
#include "ext/cache/conversation.hpp"
#include "ext/cache/counters.hpp"
#include "ext/cache/load.hpp"
#include "ext/cache/loaders.hpp"
#include "ext/cache/memory.hpp"
#include "ext/cache/read.hpp"
#include "ext/cache/tier.hpp"
#include "ext/invalidation/items.hpp"
#include "pg/guard.hpp"
#include "pg/redis_link.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "access/xlog.h"
#include "utils/snapmgr.h"
}

namespace cache_ext::cache {

/*
 * A REPEATABLE READ transaction has the one snapshot that it has.  So has a
 * parallel query: somebody has declared a function that calls us safe for it.
 */
bool
may_take_snapshots()
{
	return !IsolationUsesXactSnapshot() && !IsInParallelMode();
}

static bool
has_changed_nothing()
{
	return pg::cache_enabled && !invalidation::have_items() &&
	       !FullTransactionIdIsValid(GetTopFullTransactionIdIfAny());
}

bool
may_share()
{
	return may_take_snapshots() && has_changed_nothing();
}

/*
 * What the memory tier has.  A REPEATABLE READ transaction gets what its snapshot
 * would show; a bare value's master is in Redis, where applications change it.
 */
static MemoryHit
remembered(const Ask &ask)
{
	if (ask.plain || IsInParallelMode() || IsolationIsSerializable() || !has_changed_nothing())
		return {};
	if (!IsolationUsesXactSnapshot())
		return memory_get(ask.key);

	Snapshot snapshot = pg::call([] { return GetTransactionSnapshot(); });

	return memory_get(ask.key, snapshot);
}

text *
make_text(std::string_view value)
{
	/* On the path of every hit: nothing that would raise, so no door either. */
	void *made = value.size() < MaxAllocSize - VARHDRSZ
	                 ? palloc_extended(VARHDRSZ + value.size(), MCXT_ALLOC_NO_OOM)
	                 : nullptr;

	if (made == nullptr)
		throw std::bad_alloc();
	SET_VARSIZE(made, VARHDRSZ + value.size());
	memcpy(VARDATA(made), value.data(), value.size());
	return static_cast<text *>(made);
}

/* The value in Redis, which leaves in *seen what a load needs to know. */
static Lookup
look_in_redis(std::string_view key, const std::vector<std::string_view> &tags, const Loader *loader)
{
	ActingLoader acting(loader);
	PatienceForRedis patience(loader != nullptr ? loader->soft_timeout_ms : 0);

	return look_up(key, tags);
}

/* What memory has for readers of this loader's answers. */
static MemoryHit
remembered(const Ask &ask, const Loader *loader)
{
	ActingLoader acting(loader);

	return remembered(ask);
}

/* Has so much of the entry's life passed that it is to be renewed? */
static bool
is_due(int64 made_ms, int64 ends_ms, double eager)
{
	return eager > 0 && ends_ms > made_ms &&
	       static_cast<double>(now_ms() - made_ms) >=
	           eager * static_cast<double>(ends_ms - made_ms);
}

namespace {

/* Two looks at a clock are a good part of what a hit in memory costs: one in so many is timed. */
constexpr uint32 kHitsPerTiming = 8;

bool
is_timed() noexcept
{
	static uint32 reads = 0;

	return reads++ % kHitsPerTiming == 0;
}

/* One call of cache_get on its way through the tiers. */
class Reading
{
  public:
	explicit Reading(const Ask &ask)
	    : ask_(ask), begun_ns_(is_timed() ? clock_ns() : 0), share_(may_share())
	{
	}

	text *run()
	{
		if (text *value = from_memory())
			return value;
		find_source();
		if (source_ && source_->loader() != nullptr)
			if (text *value = from_memory())
				return value;
		if (share_ && memory_available())
			count(Tier::kMemory, Event::kMiss);
		redis_ = share_ && pg::redis_configured();
		if (text *value = redis_ ? from_redis() : nullptr)
			return value;
		if (!source_)
		{
			count(Tier::kQuery, Event::kMiss);
			return nullptr;
		}
		return load(miss());
	}

  private:
	const Loader *loader() const { return match_.loader.get(); }

	void note_hit(Tier tier) const
	{
		count(tier, Event::kHit);
		if (begun_ns_ != 0)
			count_latency(tier, clock_ns() - begun_ns_);
	}

	void find_source()
	{
		if (ask_.query != nullptr)
		{
			source_.emplace(ask_);
			return;
		}
		match_ = find_loader(ask_.key);
		if (match_.loader != nullptr)
			source_.emplace(match_);
	}

	text *from_memory()
	{
		MemoryHit found = remembered(ask_, loader());

		stale_ = stale_ || (found.found && !found.fresh);
		if (!found.fresh)
			return nullptr;
		note_hit(Tier::kMemory);

		text *value = make_text(found.value);

		return renewed(to_ms(found.facts.loaded_at), to_ms(found.facts.expires_at), value);
	}

	text *from_redis()
	{
		begun_ns_ = clock_ns();

		Lookup found = look_in_redis(ask_.key, source_ ? source_->tags() : tags_of_ask(), loader());

		stale_ = stale_ || found.outcome == Lookup::Outcome::kStale;
		redis_ = found.outcome != Lookup::Outcome::kUnavailable;
		seen_ = found.seen;
		if (!found.hit())
		{
			count(Tier::kRedis, redis_ ? Event::kMiss : Event::kError);
			return nullptr;
		}
		note_hit(Tier::kRedis);

		text *value = make_text(found.value());

		return found.bare
		           ? value
		           : renewed(found.age.made_at, found.age.made_at + found.age.fresh_ms, value);
	}

	std::vector<std::string_view> tags_of_ask() const
	{
		return {ask_.tags.names, ask_.tags.names + ask_.tags.count};
	}

	/* A hit late in its life is loaded anew by the first who comes; the others are given it. */
	text *renewed(int64 made_ms, int64 ends_ms, text *value)
	{
		if (!share_ || ask_.query != nullptr || !have_eager_loaders())
			return value;
		if (!source_)
			find_source();
		if (!source_ || !is_due(made_ms, ends_ms, source_->eager))
			return value;

		text *fresh = load_anew(miss());

		return fresh != nullptr ? fresh : value;
	}

	Miss miss()
	{
		Miss miss{ask_.key, &*source_, share_, redis_, std::move(seen_), stale_, {}, {}};

		miss.look_again = [this](Miss *again, bool redis_too) -> text * {
			MemoryHit found = remembered(ask_, loader());

			if (found.fresh)
				return make_text(found.value);
			if (!redis_too || !again->redis)
				return nullptr;

			Lookup later = look_in_redis(ask_.key, source_->tags(), loader());

			again->redis = later.outcome != Lookup::Outcome::kUnavailable;
			again->seen = later.seen;
			return later.hit() ? make_text(later.value()) : nullptr;
		};
		miss.look_for_stale = [this]() -> text * {
			MemoryHit found = remembered(ask_, loader());

			if (found.found)
				return make_text(found.value);
			if (!redis_)
				return nullptr;

			Lookup later = look_in_redis(ask_.key, source_->tags(), loader());

			return later.hit() || later.outcome == Lookup::Outcome::kStale
			           ? make_text(later.value())
			           : nullptr;
		};
		return miss;
	}

	const Ask &ask_;
	uint64 begun_ns_; /* 0: not timed */
	bool share_;
	bool redis_ = false;
	bool stale_ = false;
	LoaderMatch match_;
	std::optional<Source> source_;
	Seen seen_;
};

} /* namespace */

text *
get(const Ask &ask)
{
	if (invalidation::have_items())
	{
		invalidation::PendingValue own =
		    pg::call([&] { return invalidation::pending_value(ask.key); });

		if (own.state == invalidation::Pending::kSet)
			return make_text(own.value);
	}
	return Reading(ask).run();
}

} /* namespace cache_ext::cache */
