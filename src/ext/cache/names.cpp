/*-------------------------------------------------------------------------
 *
 * names.cpp
 *		Names, namespaces, nonces and lifetimes of cache entries; see cache.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include <algorithm>

#include "core/cache/envelope.hpp"
#include "core/invalidation/bucket.hpp"
#include "ext/cache/cache.hpp"
#include "pg/guard.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "common/pg_prng.h"
#include "utils/timestamp.h"
}

namespace cache_ext::cache {

/* The share of its life that an entry may lose, so that entries made together do not die together.
 */
constexpr double kJitter = 0.1;

/* A standby has the timeline it replays: the one its primary writes. */
static TimeLineID
current_timeline()
{
	TimeLineID timeline;

	if (!RecoveryInProgress())
		return GetWALInsertionTimeLine();
	(void) GetXLogReplayRecPtr(&timeline);
	return timeline;
}

Digest
current_namespace(uint64 epoch)
{
	static Digest remembered;
	static TimeLineID of_timeline = 0;
	static uint64 of_epoch = 0;

	TimeLineID timeline = pg::call([] { return current_timeline(); });

	if (timeline != of_timeline || epoch != of_epoch)
	{
		remembered = digest_namespace(GetSystemIdentifier(), timeline, MyDatabaseId,
		                              invalidation::kBucketCount, epoch);
		of_timeline = timeline;
		of_epoch = epoch;
	}
	return remembered;
}

std::string
full_key(std::string_view name)
{
	std::string key(pg::key_prefix != nullptr ? pg::key_prefix : "");

	key.append(name);
	return key;
}

std::string
fresh_nonce()
{
	std::string nonce(kNonceSize, '\0');

	if (!pg_strong_random(&nonce[0], nonce.size()))
		pg::call([] {
			ereport(ERROR,
			        (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate random values")));
		});
	return nonce;
}

int64
to_ms(TimestampTz time) noexcept
{
	return timestamptz_to_time_t(0) * INT64CONST(1000) + time / 1000;
}

int64
now_ms() noexcept
{
	return to_ms(GetCurrentTimestamp());
}

int64
jittered_ttl_ms(int64 asked_ms)
{
	int64 ttl = asked_ms > 0 ? asked_ms : static_cast<int64>(pg::default_ttl_s) * 1000;
	double shortened =
	    static_cast<double>(ttl) * (1.0 - kJitter * pg_prng_double(&pg_global_prng_state));

	return std::max<int64>(1, static_cast<int64>(shortened));
}

} /* namespace cache_ext::cache */
