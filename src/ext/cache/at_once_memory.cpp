/*-------------------------------------------------------------------------
 *
 * at_once_memory.cpp
 *		cache_add, cache_expire and cache_incr in the memory tier; see
 *		at_once_memory.hpp.
 *
 * Sessions that change one key take turns by a lock of it.  Readers need none,
 * and an invalidation that commits meanwhile makes the change void, as it does
 * any fill.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/cache/at_once_memory.hpp"

#include <string>
#include <vector>

#include "core/base/error.hpp"
#include "core/cache/envelope.hpp"
#include "ext/cache/arguments.hpp"
#include "ext/cache/cache.hpp"
#include "ext/cache/load_lock.hpp"
#include "ext/cache/memory.hpp"
#include "pg/guard.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "pgstat.h"
#include "storage/latch.h"
}

namespace cache_ext::cache {

constexpr int kLookAgainMs = 1;

static void
require_memory()
{
	if (!memory_available())
		throw Error({"55000"}, "there is nothing to keep cache entries in",
		            "No Redis is configured, and the server has no shared memory for them.",
		            "Set cache_ext.redis_url, or add cache_ext to shared_preload_libraries.");
}

/* What there is under a key that nobody else changes; the bytes are our own. */
struct Present
{
	bool there = false;
	std::string value;
	std::string encoded_tags;
	MemoryFacts facts;
	MemoryToken token;
};

/*
 * Read after the token has been taken: what an invalidation has voided before that is not
 * found, and one that commits later voids what is stored with the token.  The tags that the
 * token is of are learnt by a look before.  False: they have changed meanwhile.
 */
static bool
read_with_token(std::string_view key, Present *present)
{
	MemoryHit before = memory_peek(key); /* one use of the entry is one hit */

	if (before.fresh)
		present->encoded_tags = before.encoded_tags;
	present->token = memory_token(key, decode_tags(present->encoded_tags));

	MemoryHit hit = memory_get(key);

	present->there = hit.fresh;
	if (!hit.fresh)
		return present->encoded_tags.empty();
	present->value = hit.value;
	present->facts = hit.facts;
	return present->encoded_tags == hit.encoded_tags;
}

/*
 * Calls change(present) with the key locked until it returns true, which it does
 * unless an invalidation is just being committed.
 */
template <typename Change>
static void
change_locked(std::string_view key, Change &&change)
{
	Digester digester;
	LoadLock lock(digester.add(std::string_view("at once\0", 8)).add(full_key(key)).finish().low);
	TimestampTz end = GetCurrentTimestamp() + pg::load_wait_ms * INT64CONST(1000);

	while (GetCurrentTimestamp() < end)
	{
		if (lock.take())
		{
			Present present;

			if (read_with_token(key, &present) && change(present))
			{
				lock.release();
				return;
			}
		}
		pg::call([] {
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_TIMEOUT, kLookAgainMs,
			                 PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		});
	}
	lock.release();
	throw Error({"55P03"}, "could not change a cache entry because others keep changing it");
}

static bool
put(std::string_view key, std::string_view value, const Present &before, TimestampTz expires_at)
{
	MemoryFacts facts = before.facts;

	facts.expires_at = facts.keep_until = expires_at;
	facts.load_us = 0; /* no query has run */
	return memory_set(before.token, key, decode_tags(before.encoded_tags), value, facts);
}

bool
add_in_memory(std::string_view key, std::string_view value, int64 ttl_ms)
{
	TimestampTz end = GetCurrentTimestamp() + jittered_ttl_ms(ttl_ms) * 1000;
	bool added = false;

	require_memory();
	change_locked(key, [&](const Present &present) {
		added = !present.there && put(key, value, present, end);
		return present.there || added;
	});
	return added;
}

bool
expire_in_memory(std::string_view key, int64 ttl_ms)
{
	bool there = false;

	if (memory_available())
		change_locked(key, [&](const Present &present) {
			there = present.there;
			return !there ||
			       put(key, present.value, present, GetCurrentTimestamp() + ttl_ms * 1000);
		});
	return there;
}

int64
increase_in_memory(std::string_view key, int64 by)
{
	int64 sum = 0;

	require_memory();
	change_locked(key, [&](const Present &present) {
		TimestampTz end = GetCurrentTimestamp() + kMaxTtlMs * 1000;

		sum = present.there ? sum_of(key, present.value, by) : by;
		return put(key, std::to_string(sum), present,
		           present.there ? present.facts.expires_at : end);
	});
	return sum;
}

} /* namespace cache_ext::cache */
