/*-------------------------------------------------------------------------
 *
 * memory.cpp
 *		The memory tier: reading and storing entries; see memory.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/cache/memory.hpp"

#include <algorithm>

#include "core/cache/envelope.hpp"
#include "core/tier/store.hpp"
#include "ext/cache/audience.hpp"
#include "ext/cache/cache.hpp"
#include "ext/cache/memory_region.hpp"
#include "ext/cache/memory_scope.hpp"
#include "ext/cache/tier.hpp"
#include "ext/invalidation/fence.hpp"
#include "pg/guard.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "storage/lwlock.h"
#include "storage/procarray.h"
#include "utils/memutils.h"
}

namespace cache_ext::cache {

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

namespace {

using tier::Store;

/* What a hit is copied into; grows to the largest value met. */
char *buffer = nullptr;
Size buffer_size = 0;

/* A key as the store knows it: with key prefix, in this database's installation of ours. */
struct StoreKey
{
	uint64 scope;
	std::string_view name;
	std::string prefixed;
	uint64 hash;
	const Partition *partition;

	explicit StoreKey(std::string_view key) : scope(memory_scope()), name(key)
	{
		if (pg::key_prefix != nullptr && pg::key_prefix[0] != '\0')
		{
			prefixed = full_key(key);
			name = prefixed;
		}
		hash = tier::hash_of(scope, name);
		partition = &partition_of(hash);
	}
	StoreKey(const StoreKey &) = delete;
	StoreKey &operator=(const StoreKey &) = delete;
};

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
copy_current(const StoreKey &key, TimestampTz now, bool keeping, bool counts) noexcept
{
	Copied copied;
	Locked locked(*key.partition, LW_SHARED);
	Store store(key.partition->region);
	uint32 number = store.find(key.scope, key.name, key.hash);

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
	if (counts)
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
	return numbers_of_names(key, tags, invalidation::generation_of,
	                        invalidation::generation_of_all());
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

MemoryFacts
facts_of(const tier::Entry &entry) noexcept
{
	MemoryFacts facts;

	facts.loaded_at = entry.facts.loaded_at;
	facts.expires_at = entry.facts.expires_at;
	facts.keep_until = entry.facts.keep_until;
	facts.audience = entry.facts.audience;
	facts.by_settings = entry.facts.by_settings != 0;
	facts.load_us = entry.facts.load_us;
	facts.loads = entry.loads;
	facts.hits = entry.hits.load(std::memory_order_relaxed);
	return facts;
}

void
register_memory()
{
	invalidation::register_fence();
	if (!process_shared_preload_libraries_in_progress)
		return;
	register_memory_region();
	invalidation::on_set_committing(keep_set);
}

bool
memory_available()
{
	return partition_count > 0 && !RecoveryInProgress();
}

static MemoryHit
get(std::string_view name, Snapshot keep_to, bool counts)
{
	MemoryHit hit;

	if (!memory_available())
		return hit;

	StoreKey key(name);
	TimestampTz now = GetCurrentTimestamp();
	Copied copied = copy_current(key, now, keep_to != nullptr, counts);

	while (copied.current && copied.needed > buffer_size)
	{
		grow_buffer(copied.needed);
		copied = copy_current(key, now, keep_to != nullptr, counts);
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

MemoryHit
memory_get(std::string_view name, Snapshot keep_to)
{
	return get(name, keep_to, true);
}

MemoryHit
memory_peek(std::string_view name)
{
	return get(name, nullptr, false);
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

MemoryToken
memory_token(std::string_view key, const std::vector<std::string_view> &tags)
{
	return memory_token(generations_of(key, tags));
}

/* The generations first: one raised after them voids what is stored under them. */
MemoryToken
memory_token(std::vector<uint32> &&generations)
{
	MemoryToken token;

	if (!memory_available())
		return token;
	(void) invalidation::last_unknown_xid(); /* early, so that it is long ago for readers */
	token.taken_at = GetCurrentTimestamp();
	token.buckets = std::move(generations);
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

} /* namespace cache_ext::cache */
