/*-------------------------------------------------------------------------
 *
 * store_test.cpp
 *		The memory tier's store keeps what it was given, and only that.
 *
 *-------------------------------------------------------------------------
 */
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <shared_mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/tier/store.hpp"

namespace cache_ext::tier {
namespace {

constexpr int64_t kNow = 1000;
constexpr int64_t kLater = 1000000;

struct Memory
{
	explicit Memory(size_t bytes)
	    : bytes(bytes), region(std::aligned_alloc(kChunkBytes, bytes)),
	      generations(std::make_unique<Generations>())
	{
		Store::format(region, bytes);
	}
	~Memory() { std::free(region); }
	Memory(const Memory &) = delete;
	Memory &operator=(const Memory &) = delete;

	size_t bytes;
	void *region;
	std::unique_ptr<Generations> generations;
};

using Buckets = std::vector<uint32_t>;

/* A view of its arguments, the buckets included. */
NewEntry
entry_of(std::string_view key, std::string_view value, const Buckets &buckets,
         const Generations &generations, int64_t expires_at = kLater)
{
	NewEntry entry{};

	entry.scope = 7;
	entry.key = key;
	entry.value = value;
	entry.buckets = buckets.data();
	entry.bucket_count = static_cast<uint32_t>(buckets.size());
	entry.sum = generations.sum(buckets.data(), buckets.size());
	entry.facts.loaded_at = kNow;
	entry.facts.expires_at = entry.facts.keep_until = expires_at;
	return entry;
}

bool
put(const Memory &memory, std::string_view key, std::string_view value,
    const Buckets &buckets = {1}, int64_t now = kNow)
{
	Store store(memory.region);

	return store.put(entry_of(key, value, buckets, *memory.generations), *memory.generations, now);
}

std::optional<std::string>
get(const Memory &memory, std::string_view key, uint64_t scope = 7)
{
	Store store(memory.region);
	uint32_t number = store.find(scope, key);

	if (number == kNone || !store.is_current(number, *memory.generations))
		return std::nullopt;

	const Entry &entry = store.entry(number);
	std::string bytes(entry.tags_bytes + entry.value_bytes, '\0');

	store.copy_tags_and_value(number, bytes.data());
	store.note_hit(number);
	return bytes.substr(entry.tags_bytes);
}

TEST(TierStore, GivesBackValuesOfEverySizeByteForByte)
{
	Memory memory(16 * 1024 * 1024);

	for (size_t size : {0, 1, 19, 20, 21, 123, 124, 125, 1000, 4096, 100000, 1 << 20})
	{
		std::string key = "key:" + std::to_string(size);
		std::string value(size, '\0');

		for (size_t i = 0; i < size; ++i)
			value[i] = static_cast<char>(i * 31 + size);
		ASSERT_TRUE(put(memory, key, value, {1, 2, 3}));
		EXPECT_EQ(get(memory, key), value) << size;
		EXPECT_TRUE(Store(memory.region).is_consistent());
	}
}

TEST(TierStore, KeepsTagsAndKeysApartFromTheValue)
{
	Memory memory(256 * 1024);
	Store store(memory.region);
	Buckets buckets{1, 2};
	NewEntry entry = entry_of("k", "value", buckets, *memory.generations);

	entry.tags = "two tags";
	ASSERT_TRUE(store.put(entry, *memory.generations, kNow));

	uint32_t number = store.find(7, "k");
	char bytes[64];

	store.copy_key(number, bytes);
	EXPECT_EQ(std::string_view(bytes, 1), "k");
	store.copy_tags_and_value(number, bytes);
	EXPECT_EQ(std::string_view(bytes, 13), "two tagsvalue");
}

TEST(TierStore, NeverMistakesAKeyForAnother)
{
	Memory memory(1024 * 1024);

	ASSERT_TRUE(put(memory, std::string("a\0b", 3), "with a zero"));
	ASSERT_TRUE(put(memory, "a", "short"));
	ASSERT_TRUE(put(memory, std::string(500, 'x') + "1", "long 1"));
	ASSERT_TRUE(put(memory, std::string(500, 'x') + "2", "long 2"));
	EXPECT_EQ(get(memory, std::string("a\0b", 3)), "with a zero");
	EXPECT_EQ(get(memory, "a"), "short");
	EXPECT_EQ(get(memory, std::string(500, 'x') + "1"), "long 1");
	EXPECT_EQ(get(memory, std::string(500, 'x') + "2"), "long 2");
	EXPECT_EQ(get(memory, std::string(500, 'x') + "3"), std::nullopt);
	EXPECT_EQ(get(memory, "a", 8), std::nullopt) << "another database's entry";
}

TEST(TierStore, LosesEveryEntryOfABucketThatIsRaised)
{
	Memory memory(1024 * 1024);

	for (int i = 0; i < 100; ++i)
		ASSERT_TRUE(put(memory, std::to_string(i), "v", {static_cast<uint32_t>(i % 10), 99}));
	memory.generations->raise(3, 5, 0);
	for (int i = 0; i < 100; ++i)
		EXPECT_EQ(get(memory, std::to_string(i)).has_value(), i % 10 != 3) << i;
	memory.generations->raise(99, 6, 0);
	for (int i = 0; i < 100; ++i)
		EXPECT_EQ(get(memory, std::to_string(i)), std::nullopt) << i;
}

TEST(TierStore, RefusesWhatIsVoidExpiredTooLargeOrOlder)
{
	Memory memory(128 * 1024);
	Store store(memory.region);
	const Generations &generations = *memory.generations;
	Buckets four{4};
	Buckets six{6};
	NewEntry late = entry_of("late", "v", four, generations);

	memory.generations->raise(4, 1, 0);
	EXPECT_FALSE(store.put(late, generations, kNow));
	EXPECT_FALSE(store.put(entry_of("old", "v", six, generations, kNow), generations, kNow));
	EXPECT_FALSE(put(memory, "large", std::string(store.max_entry_bytes() + 1, 'x')));
	EXPECT_TRUE(put(memory, "fits", std::string(store.max_entry_bytes() - 8, 'x')));

	NewEntry newer = entry_of("k", "newer", six, generations);
	NewEntry older = entry_of("k", "older", six, generations);

	newer.facts.loaded_at = kNow + 2;
	older.facts.loaded_at = kNow + 1;
	EXPECT_TRUE(store.put(newer, generations, kNow));
	EXPECT_FALSE(store.put(older, generations, kNow));
	EXPECT_EQ(get(memory, "k"), "newer");
	/* Once the newer one has expired, anything is better. */
	older.facts.expires_at = older.facts.keep_until = kLater + 10;
	EXPECT_TRUE(store.put(older, generations, kLater));
	EXPECT_TRUE(store.is_consistent());
}

TEST(TierStore, DropsTheDeadBeforeTheLiving)
{
	Memory memory(128 * 1024);
	Store store(memory.region);
	uint64_t filled = 0;

	while (store.counters().used_chunks + 2 <= store.capacity_chunks())
		ASSERT_TRUE(put(memory, "dead:" + std::to_string(filled++), std::string(100, 'd'), {1}));
	memory.generations->raise(1, 1, 0);
	for (uint64_t i = 0; i < filled; ++i)
		ASSERT_TRUE(put(memory, "live:" + std::to_string(i), std::string(100, 'l'), {2}));
	EXPECT_EQ(store.counters().evictions, 0u);
	EXPECT_EQ(store.counters().expirations, filled);
	for (uint64_t i = 0; i < filled; ++i)
		EXPECT_TRUE(get(memory, "live:" + std::to_string(i)).has_value());
}

TEST(TierStore, KeepsWhatIsUsedThroughAScan)
{
	Memory memory(1024 * 1024);
	Store store(memory.region);
	auto used = [&](int round) {
		int found = 0;

		for (int i = 0; i < 1000; ++i)
		{
			std::string key = "hot:" + std::to_string(i);

			if (get(memory, key))
				++found;
			else
				(void) put(memory, key, "v" + std::to_string(round));
		}
		return found;
	};

	for (int round = 0; round < 4; ++round)
		used(round);
	for (int i = 0; i < 100000; ++i)
		(void) put(memory, "scan:" + std::to_string(i), "v");
	EXPECT_GE(used(5), 990);
	EXPECT_TRUE(store.is_consistent());
}

/* Every value says its key and version, so any mixture shows. */
TEST(TierStore, AgreesWithAMapWhateverIsDone)
{
	std::mt19937 random(4711);
	Memory memory(96 * 1024);
	Store store(memory.region);
	std::map<std::string, std::string> oracle;

	for (int step = 0; step < 60000; ++step)
	{
		std::string key = "k" + std::to_string(random() % 400);
		Buckets buckets{static_cast<uint32_t>(random() % 50), 60};

		switch (random() % 10)
		{
		case 0:
			memory.generations->raise(static_cast<uint32_t>(random() % 50), step, 0);
			break;
		case 1:
			if (uint32_t number = store.find(7, key); number != kNone)
				store.remove(number);
			oracle.erase(key);
			break;
		case 2:
		case 3:
		case 4: {
			std::string value = key + ":" + std::to_string(step) + ":" +
			                    std::string(random() % (random() % 20 == 0 ? 20000 : 300), 'v');

			if (put(memory, key, value, buckets))
				oracle[key] = value;
			break;
		}
		default:
			if (auto found = get(memory, key))
			{
				ASSERT_EQ(*found, oracle[key]);
			}
			break;
		}
		if (step % 1000 == 0)
		{
			ASSERT_TRUE(store.is_consistent()) << step;
		}
	}
	EXPECT_GT(store.counters().evictions, 100u) << "the test does not evict";
}

/* Fragmentation is the rest of a last chunk: a store full of small entries takes any large one. */
TEST(TierStore, HasNoHolesThatAreOfNoUse)
{
	Memory memory(4 * 1024 * 1024);
	Store store(memory.region);
	std::mt19937 random(1);

	for (int i = 0; i < 50000; ++i)
		(void) put(memory, "s" + std::to_string(i), std::string(random() % 2000, 's'));
	EXPECT_TRUE(put(memory, "large", std::string(store.max_entry_bytes() - 100, 'L')));
	EXPECT_TRUE(get(memory, "large").has_value());
	EXPECT_TRUE(store.is_consistent());
}

TEST(TierStore, LivesWhereverItsRegionIsMapped)
{
	Memory memory(256 * 1024);

	ASSERT_TRUE(put(memory, "k", "value"));

	Memory copy(memory.bytes);

	memcpy(copy.region, memory.region, memory.bytes);
	memset(memory.region, 0xee, memory.bytes);
	EXPECT_EQ(get(copy, "k"), "value");
	EXPECT_TRUE(put(copy, "k2", "another"));
	EXPECT_TRUE(Store(copy.region).is_consistent());
}

TEST(TierStore, ServesManyReadersAtOnce)
{
	Memory memory(512 * 1024);
	std::shared_mutex lock;
	std::atomic<bool> stop{false};
	std::atomic<int> wrong{0};
	std::atomic<int> hits{0};
	std::vector<std::thread> threads;

	for (int reader = 0; reader < 3; ++reader)
		threads.emplace_back([&, reader] {
			std::mt19937 random(reader);

			while (!stop)
			{
				std::string key = "k" + std::to_string(random() % 2000);

				std::this_thread::yield();

				std::shared_lock<std::shared_mutex> shared(lock);

				if (auto found = get(memory, key))
				{
					wrong += found->compare(0, key.size() + 1, key + "=") != 0;
					++hits;
				}
			}
		});

	std::mt19937 random(99);

	for (int i = 0; i < 3000; ++i)
	{
		std::string key = "k" + std::to_string(random() % 2000);
		std::unique_lock<std::shared_mutex> exclusive(lock);

		(void) put(memory, key, key + "=" + std::string(random() % 500, 'v'));
	}
	stop = true;
	for (std::thread &thread : threads)
		thread.join();
	EXPECT_EQ(wrong, 0);
	EXPECT_GT(hits, 0);
	EXPECT_TRUE(Store(memory.region).is_consistent());
}

TEST(Generations, TellTheHighestTransactionThatRaisedThem)
{
	auto generations = std::make_unique<Generations>();
	uint32_t buckets[] = {3, 4};

	generations->raise(3, 10, 0);
	generations->raise(3, 7, 0);
	generations->raise(4, 8, 0);
	EXPECT_EQ(generations->sum(buckets, 2), 3u);
	EXPECT_EQ(generations->max_xid(buckets, 1), 10u);
	EXPECT_EQ(generations->max_xid(buckets, 2), 10u);
	EXPECT_EQ(generations->max_xid(buckets + 1, 1), 8u);
}

} /* namespace */
} /* namespace cache_ext::tier */
