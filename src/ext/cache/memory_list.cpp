/*-------------------------------------------------------------------------
 *
 * memory_list.cpp
 *		What lies in the memory tier, for people to look at; see memory.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "core/tier/hottest.hpp"
#include "core/tier/store.hpp"
#include "ext/cache/cache.hpp"
#include "ext/cache/memory.hpp"
#include "ext/cache/memory_region.hpp"
#include "ext/cache/memory_scope.hpp"
#include "ext/invalidation/fence.hpp"

namespace cache_ext::cache {

using tier::Store;

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
			all.push_back({key.substr(prefix.size()), uint64{entry.value_bytes}, facts_of(entry),
			               entry.facts.set_by,
			               entry.facts.keep_until > now &&
			                   store.is_current(number, invalidation::generations())});
		});
	}
	for (MemoryListed &listed : all)
		if (listed.set_by != 0 && !has_committed(listed.set_by))
			listed.valid = false;
	return all;
}

/* Void and expired entries count as well: a name's popularity outlives its value. */
uint64
offer_hottest(tier::Hottest *hottest, TimestampTz now)
{
	uint64 hits = 0;

	for (int i = 0; i < partition_count; ++i)
	{
		Locked locked(partitions[i], LW_SHARED);
		Store store(partitions[i].region);

		store.for_each([&](uint32 number) {
			const tier::Entry &entry = store.entry(number);
			uint64 heat = tier::heat_of(entry);

			hits += entry.hits.load(std::memory_order_relaxed);
			if (entry.uses.load(std::memory_order_relaxed) == 0 ||
			    entry.key_bytes > tier::kMaxHotName || !hottest->wants(entry.scope, heat))
				return;

			std::string name(entry.key_bytes, '\0');

			store.copy_key(number, &name[0]);
			hottest->add({entry.scope, std::move(name), heat, now});
		});
	}
	return hits;
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
