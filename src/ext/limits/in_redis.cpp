/*-------------------------------------------------------------------------
 *
 * in_redis.cpp
 *		Rate limits that hold for all servers that share a Redis; see README.md.
 *
 * One round trip watches the key, reads its state and the time; a second one stores the
 * new state if nobody has changed it meanwhile.  Who is denied needs only the first.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/limits/limits.hpp"

#include <charconv>
#include <string>
#include <vector>

#include "ext/cache/cache.hpp"
#include "ext/cache/delivery_wait.hpp"
#include "ext/cache/redis_watch.hpp"
#include "pg/redis_link.hpp"

namespace cache_ext::limits {

using cache::RedisWatch;
using redis::Reply;

namespace {

/*
 * Limits of one key count together when they have the same algorithm and period, so that
 * the maximum may change; a key may have several of different periods.
 */
std::string
name_in_redis(std::string_view key, const policy::Limit &limit)
{
	std::string name = cache::full_key("limit:");

	name.append(policy::name_of(limit.algorithm));
	name.append(1, ':').append(std::to_string(limit.period_us)).append(1, ':').append(key);
	return name;
}

/* Microseconds since 1970 from the reply to TIME. */
std::optional<int64>
time_of(const Reply &reply)
{
	int64 parts[2] = {0, 0};

	if (!reply.is_array() || reply.elements.size() != 2)
		return std::nullopt;
	for (size_t i = 0; i < 2; ++i)
	{
		const std::string &text = reply.elements[i].text;
		auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), parts[i]);

		if (error != std::errc() || end != text.data() + text.size())
			return std::nullopt;
	}
	if (parts[0] < 0 || parts[0] > INT64CONST(4000000000) || parts[1] < 0 || parts[1] > 999999)
		return std::nullopt;
	return parts[0] * 1000000 + parts[1];
}

} /* namespace */

std::optional<policy::Verdict>
decide_in_redis(std::string_view key, const policy::Limit &limit, int64 cost)
{
	std::string name = name_in_redis(key, limit);
	cache::DeliveryWait time;

	do
	{
		RedisWatch watch;
		pg::RedisServer server;
		std::vector<Reply> seen;

		if (!watch.begin({name}, &server, {{"GET", name}, {"TIME"}}, &seen))
			return std::nullopt;
		for (const Reply &reply : seen)
			if (reply.is_error())
			{
				pg::redis_note_refusal(reply);
				return std::nullopt;
			}

		auto now_us = time_of(seen[1]);

		if (!now_us || !(seen[0].is_nil() || seen[0].is_string()))
		{
			pg::redis_disconnect(); /* who answers so may be anybody */
			return std::nullopt;
		}

		policy::LimitState state = policy::decode_state(limit.algorithm, seen[0].text);
		policy::Verdict verdict = policy::decide(limit, cost, *now_us, &state);

		if (!verdict.allowed)
			return verdict;

		/* Once it has been reset there is nothing left to know. */
		std::string text = policy::encode_state(limit.algorithm, state);
		std::string life_ms = std::to_string(verdict.reset_after_us / 1000 + 1);

		switch (watch.execute({"SET", name, text, "PX", life_ms}))
		{
		case RedisWatch::Outcome::kDone:
			return verdict;
		case RedisWatch::Outcome::kUnavailable:
			return std::nullopt;
		case RedisWatch::Outcome::kConflict:
			break;
		}
	} while (!time.over());
	return std::nullopt;
}

} /* namespace cache_ext::limits */
