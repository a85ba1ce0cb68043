/*-------------------------------------------------------------------------
 *
 * memory_region.cpp
 *		The shared memory that the memory tier lies in; see memory_region.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/cache/memory_region.hpp"

#include "core/tier/store.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"

namespace cache_ext::cache {

int partition_count = 0;
Partition partitions[kMaxPartitions];

namespace {

using tier::Store;

constexpr const char *kTranche = "cache_ext memory";

/* Small enough that writers seldom meet, large enough for the largest values. */
constexpr Size kPartitionBytes = 4 * 1024 * 1024;

Size
memory_bytes()
{
	return static_cast<Size>(pg::memory_size_kb) * 1024;
}

int
wanted_partitions()
{
	int wanted = 1;

	if (memory_bytes() < Store::kMinBytes)
		return 0;
	while (wanted < kMaxPartitions && memory_bytes() / (wanted * 2) >= kPartitionBytes)
		wanted *= 2;
	return wanted;
}

Size
partition_bytes()
{
	return TYPEALIGN_DOWN(tier::kChunkBytes, memory_bytes() / wanted_partitions());
}

void
request_memory()
{
	if (wanted_partitions() == 0)
		return;
	RequestAddinShmemSpace(
	    add_size(mul_size(partition_bytes(), wanted_partitions()), tier::kChunkBytes));
	RequestNamedLWLockTranche(kTranche, wanted_partitions());
}

void
attach_memory()
{
	partition_count = wanted_partitions();
	if (partition_count == 0)
		return;

	Size size = partition_bytes();
	LWLockPadded *locks = GetNamedLWLockTranche(kTranche);
	auto region = [&](char *memory, int number) {
		return reinterpret_cast<char *>(TYPEALIGN(tier::kChunkBytes, memory)) + number * size;
	};
	auto *memory = pg::attach_shared<char>(
	    "cache_ext memory", size * partition_count + tier::kChunkBytes, [&](char *fresh) {
		    for (int i = 0; i < partition_count; ++i)
			    Store::format(region(fresh, i), size);
	    });

	for (int i = 0; i < partition_count; ++i)
		partitions[i] = {&locks[i].lock, region(memory, i)};
}

pg::SharedArea area = {request_memory, attach_memory};

} /* namespace */

void
register_memory_region()
{
	pg::add_shared_area(&area);
}

} /* namespace cache_ext::cache */
