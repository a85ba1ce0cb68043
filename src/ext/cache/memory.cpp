/*-------------------------------------------------------------------------
 *
 * memory.cpp
 *		The memory tier: entries in PostgreSQL's shared memory; see memory.hpp.
 *
 * The memory is divided into partitions, each a store (core/tier) with a
 * lightweight lock: shared to read, exclusive to store.  A partition's lock is a
 * leaf: nothing is acquired, allocated or raised under it, but for lists that are
 * made for people.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/cache/memory.hpp"

#include <algorithm>

#include "core/cache/envelope.hpp"
#include "core/tier/store.hpp"
#include "ext/cache/audience.hpp"
#include "ext/cache/cache.hpp"
#include "ext/cache/memory_scope.hpp"
#include "ext/invalidation/fence.hpp"
#include "pg/guard.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/memutils.h"
}

namespace cache_ext::cache {

namespace {

using tier::Store;

constexpr const char *kTranche = "cache_ext memory";

/* Small enough that writers seldom meet, large enough for the largest values. */
constexpr Size kPartitionBytes = 4 * 1024 * 1024;
constexpr int kMaxPartitions = 64;

struct Partition
{
	LWLock *lock;
	char *region;
};

int partition_count = 0; /* 0: no memory tier */
Partition partitions[kMaxPartitions];
shmem_request_hook_type previous_request = nullptr;
shmem_startup_hook_type previous_startup = nullptr;

/* What a hit is copied into; grows to the largest value met. */
char *buffer = nullptr;
Size buffer_size = 0;

Size
memory_bytes()
{
	return static_cast<Size>(pg::memory_size_kb) * 1024;
}

int
wanted_partitions()
{
	int count = 1;

	if (memory_bytes() < Store::kMinBytes)
		return 0;
	while (count < kMaxPartitions && memory_bytes() / (count * 2) >= kPartitionBytes)
		count *= 2;
	return count;
}

Size
partition_bytes()
{
	return TYPEALIGN_DOWN(tier::kChunkBytes, memory_bytes() / wanted_partitions());
}

void
on_request()
{
	if (previous_request != nullptr)
		previous_request();
	if (wanted_partitions() == 0)
		return;
	RequestAddinShmemSpace(
	    add_size(mul_size(partition_bytes(), wanted_partitions()), tier::kChunkBytes));
	RequestNamedLWLockTranche(kTranche, wanted_partitions());
}

void
on_startup()
{
	bool found;

	if (previous_startup != nullptr)
		previous_startup();
	partition_count = wanted_partitions();
	if (partition_count == 0)
		return;
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);

	Size size = partition_bytes();
	LWLockPadded *locks = GetNamedLWLockTranche(kTranche);
	auto *memory = static_cast<char *>(
	    ShmemInitStruct("cache_ext memory", size * partition_count + tier::kChunkBytes, &found));

	memory = reinterpret_cast<char *>(TYPEALIGN(tier::kChunkBytes, memory));
	for (int i = 0; i < partition_count; ++i)
	{
		partitions[i].lock = &locks[i].lock;
		partitions[i].region = memory + i * size;
		if (!found)
			Store::format(partitions[i].region, size);
	}
	LWLockRelease(AddinShmemInitLock);
}

class Locked
{
  public:
	Locked(const Partition &partition, LWLockMode mode) noexcept : lock_(partition.lock)
	{
		LWLockAcquire(lock_, mode);
	}
	~Locked() { LWLockRelease(lock_); }
	Locked(const Locked &) = delete;
	Locked &operator=(const Locked &) = delete;

  private:
	LWLock *lock_;
};

/* A key as the store knows it: with key prefix, in this database's installation of ours. */
struct StoreKey
{
	uint64 scope;
	std::string_view name;
	std::string prefixed;
	const Partition *partition;

	explicit StoreKey(std::string_view key) : scope(memory_scope()), name(key)
	{
		if (pg::key_prefix != nullptr && pg::key_prefix[0] != '\0')
		{
			prefixed = full_key(key);
			name = prefixed;
		}
		partition = &partitions[(tier::hash_of(scope, name) >> 32) % partition_count];
	}
	StoreKey(const StoreKey &) = delete;
	StoreKey &operator=(const StoreKey &) = delete;
};

MemoryFacts
facts_of(const tier::Entry &entry)
{
	MemoryFacts facts;

	facts.loaded_at = entry.facts.loaded_at;
	facts.expires_at = entry.facts.expires_at;
	facts.keep_until = entry.facts.keep_until;
	facts.audience = entry.facts.audience;
	facts.by_settings = entry.facts.by_settings != 0;
	facts.load_us = entry.facts.load_us;
	facts.hits = entry.hits.load(std::memory_order_relaxed);
	return facts;
}

/* A hit whose bytes are in the buffer, or how large that would have to be. */
struct Copied
{
	bool current = false;
	Size needed = 0;
	Size tags_bytes = 0;
	uint64 max_xid = 0;
	uint64 set_by = 0;
	MemoryFacts facts;
};

/*
 * The generations are read after the entry has been found, and the transactions
 * that raised them after that: readers that keep to a snapshot rely on it.
 */
Copied
copy_current(const StoreKey &key, TimestampTz now, bool keeping) noexcept
{
	Copied copied;
	Locked locked(*key.partition, LW_SHARED);
	Store store(key.partition->region);
	uint32 number = store.find(key.scope, key.name);

	if (number == tier::kNone)
		return copied;

	const tier::Entry &entry = store.entry(number);

	if (entry.facts.keep_until <= now || !store.is_current(number, invalidation::generations()))
		return copied;
	copied.current = true;
	copied.needed = Size{entry.tags_bytes} + entry.value_bytes;
	if (copied.needed > buffer_size)
		return copied;
	copied.tags_bytes = entry.tags_bytes;
	copied.set_by = entry.facts.set_by;
	copied.facts = facts_of(entry);
	if (keeping)
		copied.max_xid = store.max_xid(number, invalidation::generations());
	store.copy_tags_and_value(number, buffer);
	store.note_hit(number);
	return copied;
}

void
grow_buffer(Size needed)
{
	Size size = std::max<Size>(needed, 8192);

	pg::call([&] {
		auto *larger = static_cast<char *>(MemoryContextAllocHuge(TopMemoryContext, size));

		if (buffer != nullptr)
			pfree(buffer);
		buffer = larger;
		buffer_size = size;
	});
}

/* Has the transaction that set a value committed, so that everybody sees it? */
bool
has_committed(uint64 full_xid)
{
	return pg::call([&] {
		auto xid = static_cast<TransactionId>(full_xid);
		bool committed = false;

		/* In this order: in progress lasts until it is visible. */
		if (TransactionIdIsInProgress(xid))
			return false;
		LWLockAcquire(XactTruncationLock, LW_SHARED);
#if PG_VERSION_NUM >= 170000
		TransactionId oldest = TransamVariables->oldestClogXid;
#else
		TransactionId oldest = ShmemVariableCache->oldestClogXid;
#endif
		uint64 next = U64FromFullTransactionId(ReadNextFullTransactionId());

		if (next - full_xid < PG_INT32_MAX && !TransactionIdPrecedes(xid, oldest))
			committed = TransactionIdDidCommit(xid);
		LWLockRelease(XactTruncationLock);
		return committed;
	});
}

/* Had every transaction up to this one ended when the snapshot was taken? */
bool
is_before(uint64 full_xid, Snapshot snapshot)
{
	FullTransactionId next = ReadNextFullTransactionId();
	uint64 xmin = U64FromFullTransactionId(next);
	auto distance = static_cast<int32>(XidFromFullTransactionId(next) - snapshot->xmin);

	return full_xid < xmin - static_cast<uint64>(distance);
}

std::vector<uint32>
generations_of(std::string_view key, const std::vector<std::string_view> &tags)
{
	using invalidation::generation_of;
	using invalidation::NameKind;
	std::vector<uint32> numbers;

	numbers.reserve(tags.size() + 3);
	numbers.push_back(generation_of(NameKind::kKey, key));
	for (std::string_view tag : tags)
		numbers.push_back(generation_of(NameKind::kTag, tag));
	if (invalidation::has_prefix(key))
		numbers.push_back(generation_of(NameKind::kPrefix, invalidation::prefix_of(key)));
	numbers.push_back(invalidation::generation_of_all());
	return numbers;
}

std::string
encode_tags(const std::vector<std::string_view> &tags)
{
	std::string encoded;

	for (std::string_view tag : tags)
	{
		auto length = static_cast<uint16>(tag.size());

		encoded.append(reinterpret_cast<const char *>(&length), sizeof(length));
		encoded.append(tag);
	}
	return encoded;
}

bool
put(const MemoryToken &token, std::string_view name, const std::vector<std::string_view> &tags,
    std::string_view value, const MemoryFacts &facts, uint64 set_by)
{
	StoreKey key(name);
	std::string encoded_tags = encode_tags(tags);
	TimestampTz now = GetCurrentTimestamp();
	tier::NewEntry entry;

	entry.scope = key.scope;
	entry.key = key.name;
	entry.tags = encoded_tags;
	entry.value = value;
	entry.buckets = token.buckets.data();
	entry.bucket_count = static_cast<uint32>(token.buckets.size());
	entry.sum = token.sum;
	entry.facts = {token.taken_at,   facts.expires_at, std::max(facts.expires_at, facts.keep_until),
	               facts.audience,   set_by,           facts.load_us,
	               facts.by_settings};

	Locked locked(*key.partition, LW_EXCLUSIVE);

	return Store(key.partition->region).put(entry, invalidation::generations(), now);
}

/*
 * Keep the value that the committing transaction sets.  Readers get it when the
 * transaction has committed.  When somebody else commits something about the
 * same names at the same time, nobody can tell whose commit will be later: then
 * it is not kept, and the other one's raised generation voids it otherwise.
 */
void
keep_set(const invalidation::SetBody &set)
{
	if (set.plain || !memory_available())
		return;
	pg::guard([&] {
		std::vector<std::string_view> tags;
		std::string_view encoded = set.tags;
		std::string_view tag;
		MemoryFacts facts;

		while (invalidation::take_bytes(encoded, tag))
			tags.push_back(tag);

		MemoryToken token = memory_token(set.key, tags);

		if (token.busy)
			return;

		uint64 xid = pg::call([] { return U64FromFullTransactionId(GetTopFullTransactionId()); });

		facts.expires_at = facts.keep_until =
		    token.taken_at + jittered_ttl_ms(static_cast<int64>(set.ttl_ms)) * 1000;
		(void) put(token, set.key, tags, set.value, facts, xid);
	});
}

} /* namespace */

void
register_memory()
{
	invalidation::register_fence();
	if (!process_shared_preload_libraries_in_progress)
		return;
	previous_request = shmem_request_hook;
	shmem_request_hook = on_request;
	previous_startup = shmem_startup_hook;
	shmem_startup_hook = on_startup;
	invalidation::on_set_committing(keep_set);
}

bool
memory_available()
{
	return partition_count > 0 && !RecoveryInProgress();
}

MemoryHit
memory_get(std::string_view name, Snapshot keep_to)
{
	MemoryHit hit;

	if (!memory_available())
		return hit;

	StoreKey key(name);
	TimestampTz now = GetCurrentTimestamp();
	Copied copied = copy_current(key, now, keep_to != nullptr);

	while (copied.current && copied.needed > buffer_size)
	{
		grow_buffer(copied.needed);
		copied = copy_current(key, now, keep_to != nullptr);
	}
	if (!copied.current || (copied.set_by != 0 && !has_committed(copied.set_by)))
		return hit;
	if (keep_to != nullptr &&
	    !is_before(std::max(copied.max_xid, invalidation::last_unknown_xid()), keep_to))
		return hit;
	if (copied.facts.audience != kEverybody &&
	    copied.facts.audience != current_audience(copied.facts.by_settings))
		return hit;
	hit.found = true;
	hit.fresh = copied.facts.expires_at > now;
	hit.encoded_tags = {buffer, copied.tags_bytes};
	hit.value = {buffer + copied.tags_bytes, copied.needed - copied.tags_bytes};
	hit.facts = copied.facts;
	return hit;
}

std::vector<std::string_view>
decode_tags(std::string_view encoded)
{
	std::vector<std::string_view> tags;

	while (!encoded.empty())
	{
		uint16 length;

		memcpy(&length, encoded.data(), sizeof(length));
		tags.push_back(encoded.substr(sizeof(length), length));
		encoded.remove_prefix(sizeof(length) + length);
	}
	return tags;
}

/* The generations first: one raised after them voids what is stored under them. */
MemoryToken
memory_token(std::string_view key, const std::vector<std::string_view> &tags)
{
	MemoryToken token;

	if (!memory_available())
		return token;
	(void) invalidation::last_unknown_xid(); /* early, so that it is long ago for readers */
	token.taken_at = GetCurrentTimestamp();
	token.buckets = generations_of(key, tags);
	token.sum = invalidation::generations().sum(token.buckets.data(), token.buckets.size());
	token.busy = pg::call([&] {
		return invalidation::fence_is_up(token.buckets.data(),
		                                 static_cast<int>(token.buckets.size()));
	});
	return token;
}

bool
memory_token_covers(const MemoryToken &token, std::string_view key,
                    const std::vector<std::string_view> &tags)
{
	std::vector<uint32> own = token.buckets;
	std::vector<uint32> wanted = generations_of(key, tags);

	std::sort(own.begin(), own.end());
	std::sort(wanted.begin(), wanted.end());
	return own == wanted;
}

void
memory_forget(std::string_view key)
{
	if (memory_available())
		invalidation::raise_at_once(invalidation::generation_of(invalidation::NameKind::kKey, key));
}

bool
memory_set(const MemoryToken &token, std::string_view key,
           const std::vector<std::string_view> &tags, std::string_view value,
           const MemoryFacts &facts)
{
	if (token.buckets.empty() || token.busy)
		return false;
	return put(token, key, tags, value, facts, 0);
}

/* -------------------------------------------------------------------------
 * For people to look at
 * -------------------------------------------------------------------------
 */

MemoryStatistics
memory_statistics()
{
	MemoryStatistics sum{};
	uint64 scope = partition_count > 0 ? memory_scope() : 0;

	for (int i = 0; i < partition_count; ++i)
	{
		Locked locked(partitions[i], LW_SHARED);
		Store store(partitions[i].region);
		const tier::Counters &counters = store.counters();

		sum.capacity += store.capacity_chunks() * tier::kChunkBytes;
		sum.used += counters.used_chunks * tier::kChunkBytes;
		sum.sets += counters.sets;
		sum.evictions += counters.evictions;
		sum.expirations += counters.expirations;
		store.for_each([&](uint32 number) {
			const tier::Entry &entry = store.entry(number);

			if (entry.scope != scope)
				return;
			sum.entries += 1;
			sum.bytes += uint64{entry.key_bytes} + entry.tags_bytes + entry.value_bytes;
		});
	}
	return sum;
}

std::vector<MemoryListed>
memory_list()
{
	std::vector<MemoryListed> all;
	std::string prefix = full_key("");
	uint64 scope = partition_count > 0 ? memory_scope() : 0;
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < partition_count; ++i)
	{
		Locked locked(partitions[i], LW_SHARED);
		Store store(partitions[i].region);

		store.for_each([&](uint32 number) {
			const tier::Entry &entry = store.entry(number);
			std::string key(entry.scope == scope ? entry.key_bytes : 0, '\0');

			if (entry.scope != scope)
				return;
			store.copy_key(number, &key[0]);
			if (key.compare(0, prefix.size(), prefix) != 0)
				return;
			all.push_back({key.substr(prefix.size()),
			               uint64{entry.key_bytes} + entry.tags_bytes + entry.value_bytes,
			               facts_of(entry),
			               entry.facts.keep_until > now &&
			                   store.is_current(number, invalidation::generations())});
		});
	}
	return all;
}

static LastInvalidation
last_raise(uint32 generation)
{
	const tier::Generation &found = invalidation::generations()[generation];

	return {static_cast<TimestampTz>(found.at.load()), found.max_xid.load()};
}

LastInvalidation
last_key_invalidation(std::string_view key)
{
	if (!memory_available())
		return {0, 0};
	return last_raise(invalidation::generation_of(invalidation::NameKind::kKey, key));
}

LastInvalidation
last_tag_invalidation(std::string_view tag)
{
	if (!memory_available())
		return {0, 0};
	return last_raise(invalidation::generation_of(invalidation::NameKind::kTag, tag));
}

LastInvalidation
last_prefix_invalidation(std::string_view key)
{
	if (!memory_available() || !invalidation::has_prefix(key))
		return {0, 0};
	return last_raise(
	    invalidation::generation_of(invalidation::NameKind::kPrefix, invalidation::prefix_of(key)));
}

LastInvalidation
last_clear()
{
	if (!memory_available())
		return {0, 0};
	return last_raise(invalidation::generation_of_all());
}

} /* namespace cache_ext::cache */
