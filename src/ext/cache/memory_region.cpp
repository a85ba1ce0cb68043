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

extern "C" {
#include "storage/ipc.h"
#include "storage/shmem.h"
}

namespace cache_ext::cache {

int partition_count = 0;
Partition partitions[kMaxPartitions];

namespace {

using tier::Store;

constexpr const char *kTranche = "cache_ext memory";

/* Small enough that writers seldom meet, large enough for the largest values. */
constexpr Size kPartitionBytes = 4 * 1024 * 1024;

shmem_request_hook_type previous_request = nullptr;
shmem_startup_hook_type previous_startup = nullptr;

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

} /* namespace */

void
register_memory_region()
{
	previous_request = shmem_request_hook;
	shmem_request_hook = on_request;
	previous_startup = shmem_startup_hook;
	shmem_startup_hook = on_startup;
}

} /* namespace cache_ext::cache */
