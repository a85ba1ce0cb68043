/*-------------------------------------------------------------------------
 *
 * outbox.hpp
 *		The outbox and the state of Redis, as tables.
 *
 * The only file that knows the layout of cache_ext_internal.outbox, retained,
 * redis_state and delivery.  Plain data, may raise, never SPI.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string_view>

#include "core/base/digest.hpp"
#include "pg/server.hpp"

extern "C" {
#include "utils/snapshot.h"
}

namespace cache_ext::invalidation {

/*
 * May Redis not be trusted for an entry of these buckets?  True when the
 * snapshot sees an undelivered row of one of them (bucket.hpp numbers them;
 * name the entry's key, tags, prefix and kBucketOfAll, in ascending order), when
 * the Redis tier is closed, or when the outbox is too large to look.
 *
 * The snapshot must be a fresh one (GetLatestSnapshot) for the promise that
 * nothing older than a returned COMMIT is believed.
 */
bool outbox_pending(const uint32 *buckets, int count, Snapshot snapshot);

/*
 * The epoch that values are stored and believed under, and the server that all
 * deliveries so far are known to.  A plain value may be believed only when the
 * connection's incarnation equals this one: after a restart of Redis with older
 * data the worker first delivers again what may have come back.
 */
struct RedisState
{
	uint64 epoch;
	bool has_incarnation;
	Digest incarnation;
};
RedisState read_redis_state(Snapshot snapshot);

/*
 * Has a commit that the snapshot sees removed the key of this name, and Redis has not
 * confirmed it?  Unlike the above exact, and never tired of looking.  also_retained: nor
 * may be relied on to remember what it has confirmed.
 */
bool removal_pending(std::string_view key, Snapshot snapshot, bool also_retained);

/* The first of these for many names, in ascending order, in one look. */
void mark_pending_removals(const std::string_view *keys, int count, bool *removed,
                           Snapshot snapshot);

/* Is the extension installed in this database?  Its tables may be used only then. */
bool outbox_exists();

} /* namespace cache_ext::invalidation */
