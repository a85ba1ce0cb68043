/*-------------------------------------------------------------------------
 *
 * redis_health.hpp
 *		Shared memory: what all processes have met at an address of Redis.
 *
 * One process notices that Redis has gone or come back, and tells the log; the
 * others know.  When several in a row got no answer in time, nobody asks for a
 * while, so that a silent Redis does not cost each process its own timeouts.
 *
 * Atomics only: no lock, no wait.  Without room in shared memory each process
 * knows what it has met itself.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "core/base/digest.hpp"
#include "pg/server.hpp"

namespace cache_ext::pg {

struct RedisHealth;

/* Hooks for shared memory when the library is preloaded; nothing otherwise. */
void register_redis_health();

/* The entry of an address, taken at first use; a null pointer when all are in use.  May raise. */
RedisHealth *redis_health(const Digest &address);

/* Microseconds on the monotonic clock, which all processes share. */
int64 health_clock() noexcept;

/* Has everybody been asked to leave Redis alone for a while? */
bool in_shared_pause(RedisHealth *health) noexcept;

/*
 * A failure that took so long, for a reason (not 0).  True when the last one
 * since a success had another reason or there was none: the caller is the one to
 * tell the log.
 */
bool note_shared_failure(RedisHealth *health, int64 took_us, uint32 reason) noexcept;

/* A success.  Returns how many failures it ends; not 0: the caller tells the log. */
uint32 note_shared_success(RedisHealth *health) noexcept;

} /* namespace cache_ext::pg */
