/*-------------------------------------------------------------------------
 *
 * at_once.cpp
 *		What happens at once, whatever becomes of the transaction; see at_once.hpp.
 *
 * The key is watched in Redis, looked at, and changed only if nobody has
 * touched it since; whoever loses starts again.  An invalidation that has been
 * committed and not yet delivered comes first: the caller waits for it, or what
 * it stores now would be removed by something that was said earlier.
 *
 * Without Redis the entry lives in the memory tier, and a lock of the key makes
 * the same functions of other sessions wait.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/cache/at_once.hpp"

#include <algorithm>
#include <charconv>
#include <optional>
#include <vector>

#include "core/base/error.hpp"
#include "core/cache/envelope.hpp"
#include "ext/cache/at_once_memory.hpp"
#include "ext/cache/cache.hpp"
#include "ext/cache/conversation.hpp"
#include "ext/cache/delivery_wait.hpp"
#include "ext/cache/memory.hpp"
#include "ext/cache/tier.hpp"
#include "pg/guard.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "common/int.h"
}

namespace cache_ext::cache {

constexpr int kAttempts = 32;
/* Is an invalidation of the key on its way to Redis? */
static bool
is_awaited(std::string_view key)
{
	return !look_at_outbox(buckets_of(key, {})).trusted;
}

/*
 * Calls change(entry, watch) on the watched key until it says that it is done;
 * false: Redis cannot be used now.
 */
template <typename Change>
static bool
change_watched(std::string_view key, Change &&change)
{
	DeliveryWait deadline;

	for (int attempt = 0; attempt < kAttempts;)
	{
		RedisWatch watch;
		pg::RedisServer server;

		if (!watch.begin({full_key(key)}, &server))
			return false;

		Lookup found = std::move(look_up_many({key}, true).front());

		if (found.outcome == Lookup::Outcome::kUnavailable)
		{
			if (!is_awaited(key) || !deadline.pause())
				return false;
			continue;
		}

		RedisWatch::Outcome outcome = change(found, watch);

		if (outcome == RedisWatch::Outcome::kConflict)
		{
			++attempt;
			continue;
		}
		memory_forget(key); /* also where the answer was lost: it may have been done */
		return outcome == RedisWatch::Outcome::kDone;
	}
	throw Error({"40001"}, "could not change a cache entry because others keep changing it");
}

/* A life below zero never ends. */
static RedisWatch::Outcome
store(RedisWatch *watch, const std::string &name, std::string_view value, int64 life_ms)
{
	if (life_ms < 0)
		return watch->execute({"SET", name, value});
	return watch->execute({"SET", name, value, "PX", std::to_string(life_ms)});
}

/* The value in an envelope of now. */
static std::optional<std::string>
seal(std::string_view key, const std::vector<std::string_view> &tags, Seen &&seen,
     std::string_view value, const Storing &how)
{
	Fill fill(key, tags, false);

	if (!fill.begin(std::move(seen)))
		return std::nullopt;
	return fill.sealed(value, how);
}

bool
add_at_once(std::string_view key, std::string_view value, int64 ttl_ms)
{
	if (!pg::redis_configured())
		return add_in_memory(key, value, ttl_ms);

	Storing how{jittered_ttl_ms(ttl_ms), 0, kEverybody, false};
	bool added = false;

	(void) change_watched(key, [&](Lookup &found, RedisWatch &watch) {
		if (found.hit())
			return RedisWatch::Outcome::kDone;

		auto sealed = seal(key, {}, std::move(found.seen), value, how);
		std::string name = full_key(key);
		redis::Reply reply;

		if (!sealed)
			return RedisWatch::Outcome::kConflict;

		/* What is void is replaced; what is no string is another application's, and stays. */
		RedisWatch::Outcome outcome =
		    found.storage.is_string()
		        ? store(&watch, name, *sealed, how.ttl_ms)
		        : watch.execute({"SET", name, *sealed, "PX", std::to_string(how.ttl_ms), "NX"},
		                        &reply);

		added =
		    outcome == RedisWatch::Outcome::kDone && (found.storage.is_string() || reply.is_ok());
		return outcome;
	});
	return added;
}

bool
expire_at_once(std::string_view key, int64 ttl_ms)
{
	if (!pg::redis_configured())
		return expire_in_memory(key, ttl_ms);

	bool there = false;

	(void) change_watched(key, [&](Lookup &found, RedisWatch &watch) {
		std::string name = full_key(key);

		there = found.hit();
		if (!there)
			return RedisWatch::Outcome::kDone;
		/* An entry that is kept longer than it is given says so itself. */
		if (found.age.fresh_ms > 0)
		{
			auto old = decode(found.storage.text);
			int64 fresh_left = found.age.made_at + found.age.fresh_ms - now_ms();
			Storing how{ttl_ms, std::max<int64>(found.age.left_ms - fresh_left, 0), old->audience,
			            old->by_settings};
			auto sealed = seal(key, old->tags, std::move(found.seen), old->payload, how);

			return sealed ? store(&watch, name, *sealed, how.ttl_ms + how.stale_ms)
			              : RedisWatch::Outcome::kConflict;
		}
		return watch.execute({"PEXPIRE", name, std::to_string(ttl_ms)});
	});
	return there;
}

/* -------------------------------------------------------------------------
 * Counting
 * -------------------------------------------------------------------------
 */

[[noreturn]] static void
refuse_text(std::string_view key)
{
	throw Error(kInvalidTextRepresentation,
	            "value of cache entry \"" + std::string(key) + "\" is no integer");
}

[[noreturn]] static void
refuse_overflow()
{
	throw Error({"22003"}, "value of a cache entry is out of range for type bigint");
}

int64
sum_of(std::string_view key, std::string_view value, int64 by)
{
	int64 number = 0;
	int64 sum;
	auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);

	if (error != std::errc() || end != value.data() + value.size())
		refuse_text(key);
	if (pg_add_s64_overflow(number, by, &sum))
		refuse_overflow();
	return sum;
}

/* A number that somebody has set is in an envelope, which INCRBY cannot read. */
static int64
increase_enveloped(std::string_view key, int64 by)
{
	int64 sum = 0;

	if (!change_watched(key, [&](Lookup &found, RedisWatch &watch) {
		    std::string name = full_key(key);
		    auto old = found.hit() ? decode(found.storage.text) : std::nullopt;

		    sum = found.hit() ? sum_of(key, found.value(), by) : by;

		    std::string text = std::to_string(sum);

		    /* Nothing, or something void: a counter of Redis's own begins. */
		    if (!old)
			    return store(&watch, name, text, found.hit() ? found.age.left_ms : -1);

		    Storing how{found.age.fresh_ms > 0
		                    ? std::max<int64>(found.age.made_at + found.age.fresh_ms - now_ms(), 1)
		                    : found.age.left_ms,
		                0, old->audience, old->by_settings};
		    auto sealed = seal(key, old->tags, std::move(found.seen), text, how);

		    return sealed ? store(&watch, name, *sealed, how.ttl_ms)
		                  : RedisWatch::Outcome::kConflict;
	    }))
		throw Error(kConnectionFailure,
		            "could not count in Redis server \"" + pg::redis_name() + "\"");
	return sum;
}

static void
await_deliveries(std::string_view key)
{
	DeliveryWait deadline;

	while (is_awaited(key))
		if (!deadline.pause())
			throw Error(kConnectionFailure,
			            "could not count in Redis server \"" + pg::redis_name() + "\"",
			            "An earlier invalidation of the key has not been delivered.");
}

int64
increase_at_once(std::string_view key, int64 by)
{
	if (!pg::redis_configured())
		return increase_in_memory(key, by);

	redis::Request request;

	await_deliveries(key);
	request.add({"INCRBY", full_key(key), std::to_string(by)});

	redis::Reply reply = std::move(pg::redis_exchange(request).front());

	if (reply.kind == redis::Reply::Kind::kInteger)
	{
		memory_forget(key);
		return reply.integer;
	}
	if (reply.text.find("overflow") != std::string::npos)
		refuse_overflow();
	if (reply.text.rfind("WRONGTYPE", 0) == 0)
		refuse_text(key);
	if (reply.text.find("not an integer") != std::string::npos)
		return increase_enveloped(key, by);
	pg::redis_disconnect(); /* who answers so may be anybody */
	throw Error(kConnectionFailure, "could not count in Redis server \"" + pg::redis_name() + "\"",
	            "Redis answers: " + redis::readable(reply.text) + ".");
}

} /* namespace cache_ext::cache */
