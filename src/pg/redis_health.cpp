/*-------------------------------------------------------------------------
 *
 * redis_health.cpp
 *		Shared memory: what all processes have met at an address of Redis.
 *
 * failures counts since the last success, silences those in a row that cost
 * time; reason is the one that the log was told last.  The processes' updates
 * may interleave: the worst that comes of it is a line in the log too many or too
 * few, or a pause that begins one timeout later.
 *
 *-------------------------------------------------------------------------
 */
#include <algorithm>
#include <chrono>

#include "pg/redis_health.hpp"

extern "C" {
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
}

namespace cache_ext::pg {

constexpr int kAddresses = 16;

/* What costs less is no silence but an answer: a refused connection, a wrong password. */
constexpr int64 kSilenceUs = 20 * 1000;

/* So many silences in a row, of whichever processes, and all leave Redis alone. */
constexpr uint32 kSilencesToPause = 3;
constexpr int64 kPauseFactor = 10;
constexpr int64 kLongestPauseUs = 10 * 1000 * 1000;

struct RedisHealth
{
	pg_atomic_uint64 address; /* 0: free */
	pg_atomic_uint64 not_before;
	pg_atomic_uint32 failures;
	pg_atomic_uint32 silences;
	pg_atomic_uint32 reason;
};

struct HealthTable
{
	RedisHealth entries[kAddresses];
};

static HealthTable *table = nullptr;
static shmem_request_hook_type previous_request = nullptr;

extern "C" {
static void
cache_ext_request_health(void)
{
	if (previous_request != nullptr)
		previous_request();
	RequestAddinShmemSpace(sizeof(HealthTable));
}
}

void
register_redis_health()
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	previous_request = shmem_request_hook;
	shmem_request_hook = cache_ext_request_health;
}

/* Without preloading, the slack of shared memory has room for so small a table. */
static void
attach_table()
{
	bool found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);

	auto *shared = static_cast<HealthTable *>(
	    ShmemInitStruct("cache_ext Redis health", sizeof(HealthTable), &found));

	if (!found)
		for (RedisHealth &entry : shared->entries)
		{
			pg_atomic_init_u64(&entry.address, 0);
			pg_atomic_init_u64(&entry.not_before, 0);
			pg_atomic_init_u32(&entry.failures, 0);
			pg_atomic_init_u32(&entry.silences, 0);
			pg_atomic_init_u32(&entry.reason, 0);
		}
	LWLockRelease(AddinShmemInitLock);
	table = shared;
}

RedisHealth *
redis_health(const Digest &address)
{
	uint64 wanted = address.low != 0 ? address.low : 1;

	if (table == nullptr)
		attach_table();
	for (RedisHealth &entry : table->entries)
	{
		uint64 there = 0;

		if (pg_atomic_compare_exchange_u64(&entry.address, &there, wanted) || there == wanted)
			return &entry;
	}
	return nullptr;
}

int64
health_clock() noexcept
{
	auto now = std::chrono::steady_clock::now().time_since_epoch();

	return std::chrono::duration_cast<std::chrono::microseconds>(now).count();
}

bool
in_shared_pause(RedisHealth *health) noexcept
{
	return health != nullptr && pg_atomic_read_u32(&health->silences) >= kSilencesToPause &&
	       health_clock() < static_cast<int64>(pg_atomic_read_u64(&health->not_before));
}

bool
note_shared_failure(RedisHealth *health, int64 took_us, uint32 reason) noexcept
{
	if (took_us >= kSilenceUs)
	{
		int64 pause = std::min(took_us * kPauseFactor, kLongestPauseUs);

		pg_atomic_write_u64(&health->not_before, static_cast<uint64>(health_clock() + pause));
		pg_atomic_fetch_add_u32(&health->silences, 1);
	}
	pg_atomic_fetch_add_u32(&health->failures, 1);
	return pg_atomic_exchange_u32(&health->reason, reason) != reason;
}

uint32
note_shared_success(RedisHealth *health) noexcept
{
	/* Written only when something changes: this is on the path of every hit. */
	if (pg_atomic_read_u32(&health->failures) == 0)
		return 0;
	pg_atomic_write_u32(&health->silences, 0);
	pg_atomic_write_u32(&health->reason, 0);
	return pg_atomic_exchange_u32(&health->failures, 0);
}

} /* namespace cache_ext::pg */
