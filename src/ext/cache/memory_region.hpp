/*-------------------------------------------------------------------------
 *
 * memory_region.hpp
 *		The shared memory that the memory tier lies in.
 *
 * It is divided into partitions, each a store (core/tier) with a lightweight
 * lock: shared to read, exclusive to store.  A partition's lock is a leaf: nothing
 * is acquired, allocated or raised under it, but for lists of entries.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <cstdint>

#include "pg/server.hpp"

extern "C" {
#include "storage/lwlock.h"
}

namespace cache_ext::cache {

struct Partition
{
	LWLock *lock;
	char *region;
};

/* Hooks for shared memory. */
void register_memory_region();

/* Written when shared memory is laid out. */
constexpr int kMaxPartitions = 64;
extern int partition_count; /* 0: no memory tier */
extern Partition partitions[kMaxPartitions];

inline const Partition &
partition_of(uint64 hash) noexcept
{
	return partitions[(hash >> 32) % partition_count];
}

/* Holds a partition's lock for as long as it lives. */
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

} /* namespace cache_ext::cache */
