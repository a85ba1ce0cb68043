/*-------------------------------------------------------------------------
 *
 * in_redis.cpp
 *		Sessions in Redis, as connect-redis keeps them; see README.md.
 *
 * Everything happens at once.  What depends on the session as it is (touch, regenerate)
 * watches its key and starts again when somebody else has changed it.
 *
 * Sessions that a commit has ended may still lie in Redis.  So each call first looks
 * which removals Redis has not confirmed, then asks, and then makes sure that the server
 * that has answered is the one that was told of the others.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/sessions/sessions.hpp"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "core/base/error.hpp"
#include "core/invalidation/glob.hpp"
#include "core/policy/json_text.hpp"
#include "core/policy/session_life.hpp"
#include "ext/cache/arguments.hpp"
#include "ext/cache/cache.hpp"
#include "ext/cache/conversation.hpp"
#include "ext/cache/delivery_wait.hpp"
#include "ext/cache/redis_watch.hpp"
#include "ext/invalidation/items.hpp"
#include "ext/invalidation/outbox.hpp"
#include "pg/guard.hpp"
#include "pg/redis_link.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "mb/pg_wchar.h"
#include "utils/snapmgr.h"
}

namespace cache_ext::sessions {

using cache::RedisWatch;
using redis::Reply;

constexpr int kAttempts = 32;
constexpr const char *kScanStep = "1000";
constexpr size_t kAskedAtOnce = 50; /* of the sessions that a step has found */

namespace {

/* -------------------------------------------------------------------------
 * What Redis says
 * -------------------------------------------------------------------------
 */

[[noreturn]] void
refuse(const Reply &reply)
{
	if (reply.is_error() && reply.text.rfind("WRONGTYPE", 0) == 0)
		throw Error(kInvalidTextRepresentation,
		            "session in Redis server \"" + pg::redis_name() +
		                "\" is not kept as connect-redis keeps it",
		            "It is no string.");
	if (!reply.is_error())
		pg::redis_disconnect(); /* who answers so may be anybody */
	throw Error(kConnectionFailure,
	            "could not use sessions in Redis server \"" + pg::redis_name() + "\"",
	            reply.is_error() ? "Redis answers: " + redis::readable(reply.text) + "."
	                             : "The answer makes no sense.");
}

[[noreturn]] void
refuse_silence()
{
	std::string why = pg::redis_health_status().last_error;

	throw Error(kConnectionFailure,
	            "could not use sessions in Redis server \"" + pg::redis_name() + "\"",
	            why.empty() ? "" : "The last failure was: " + why);
}

[[noreturn]] void
refuse_to_wait()
{
	throw Error(kConnectionFailure,
	            "could not use sessions in Redis server \"" + pg::redis_name() + "\"",
	            "It has not yet been told that an earlier session of this name has ended.");
}

void
expect(bool good, const Reply &reply)
{
	if (!good)
		refuse(reply);
}

Reply
ask(std::initializer_list<std::string_view> command, pg::RedisServer *server = nullptr)
{
	redis::Request request;

	request.add(command);
	return std::move(pg::redis_exchange(request, pg::ExchangeOptions(), server).front());
}

/* -------------------------------------------------------------------------
 * What a commit has ended
 * -------------------------------------------------------------------------
 */

/* What was known when a call began. */
struct Standing
{
	bool ended;      /* by this transaction, or by a commit that Redis has not confirmed */
	bool ended_here; /* by this transaction */
	invalidation::RedisState deliveries;
};

Standing
look(std::string_view key)
{
	Standing standing{};

	pg::call([&] {
		standing.ended_here = invalidation::removal_collected(key);
		PushActiveSnapshot(GetLatestSnapshot());
		standing.ended =
		    standing.ended_here || invalidation::removal_pending(key, GetActiveSnapshot(), false);
		standing.deliveries = invalidation::read_redis_state(GetActiveSnapshot());
		PopActiveSnapshot();
	});
	return standing;
}

/*
 * Has the session been ended, as far as the server that has answered is concerned?  One
 * that the deliveries do not know may have forgotten what it was told.
 */
bool
is_ended(std::string_view key, const Standing &standing, const pg::RedisServer &server)
{
	if (standing.ended || cache::knows_deliveries(standing.deliveries, server))
		return standing.ended;
	return pg::call([&] {
		PushActiveSnapshot(GetLatestSnapshot());

		bool ended = invalidation::removal_pending(key, GetActiveSnapshot(), true);

		PopActiveSnapshot();
		return ended;
	});
}

/* -------------------------------------------------------------------------
 * One session
 * -------------------------------------------------------------------------
 */

std::optional<std::string>
read(std::string_view key)
{
	Standing standing = look(key);
	pg::RedisServer server;

	if (standing.ended)
		return std::nullopt;

	Reply reply = ask({"GET", cache::full_key(key)}, &server);

	expect(reply.is_nil() || reply.is_string(), reply);
	if (reply.is_nil() || is_ended(key, standing, server))
		return std::nullopt;
	return std::move(reply.text);
}

/* What a delivery that is on its way would remove must not be stored before it. */
void
await_ends(std::string_view key)
{
	cache::DeliveryWait wait;

	for (;;)
	{
		Standing standing = look(key);

		if (standing.ended_here)
			throw Error({"55000"}, "session ends when this transaction commits",
			            "session_destroy_all has named it.", "Store it under another sid.");
		if (!standing.ended && !is_ended(key, standing, pg::redis_server()))
			return;
		if (!wait.pause())
			refuse_to_wait();
	}
}

void
write(std::string_view key, std::string_view json, int64 life_ms)
{
	std::string name = cache::full_key(key);

	await_ends(key);

	Reply reply = ask({"SET", name, json, "PX", std::to_string(life_ms)});

	expect(reply.is_ok(), reply);
}

bool
remove(std::string_view key)
{
	Standing standing = look(key);
	pg::RedisServer server;
	Reply reply = ask({"UNLINK", cache::full_key(key)}, &server);

	expect(reply.kind == Reply::Kind::kInteger, reply);
	return reply.integer > 0 && !is_ended(key, standing, server);
}

/* A session as it is while its key is watched. */
struct Present
{
	std::string json;
	int64 left_ms; /* -1: it never ends */
};

/*
 * Calls change(present, watch) on the watched session until nobody has interfered;
 * false: there is no session, or none any more.
 */
template <typename Change>
bool
change_watched(std::string_view key, Change &&change)
{
	std::string name = cache::full_key(key);

	for (int attempt = 0; attempt < kAttempts; ++attempt)
	{
		Standing standing = look(key);
		RedisWatch watch;
		pg::RedisServer server;
		std::vector<Reply> seen;

		if (standing.ended)
			return false;
		if (!watch.begin({name}, &server, {{"GET", name}, {"PTTL", name}}, &seen))
			refuse_silence();
		expect(seen[0].is_nil() || seen[0].is_string(), seen[0]);
		expect(seen[1].kind == Reply::Kind::kInteger, seen[1]);
		/* The answer is older than the watch, which does not see what a commit has ended before. */
		if (seen[0].is_nil() || seen[1].integer < -1 || is_ended(key, standing, server) ||
		    look(key).ended)
			return false;

		bool there = true;

		switch (change(Present{std::move(seen[0].text), seen[1].integer}, watch, &there))
		{
		case RedisWatch::Outcome::kDone:
			return there;
		case RedisWatch::Outcome::kUnavailable:
			refuse_silence();
		case RedisWatch::Outcome::kConflict:
			break;
		}
	}
	throw Error({"40001"}, "could not change a session because others keep changing it");
}

bool
touch(std::string_view key)
{
	std::string name = cache::full_key(key);

	return change_watched(key, [&](const Present &now, RedisWatch &watch, bool *there) {
		if (now.left_ms < 0)
			return RedisWatch::Outcome::kDone;

		policy::SessionLife life = policy::life_when_touched(
		    now.json, now.left_ms, pg::session_ttl_s * INT64CONST(1000), cache::now_ms());
		std::string ms = std::to_string(life.ms);
		Reply reply;
		RedisWatch::Outcome outcome =
		    life.json == now.json ? watch.execute({"PEXPIRE", name, ms}, &reply)
		                          : watch.execute({"SET", name, life.json, "PX", ms, "XX"}, &reply);

		*there = reply.is_ok() || reply.integer > 0;
		return outcome;
	});
}

bool
move(std::string_view key, std::string_view to)
{
	std::string name = cache::full_key(key);
	std::string new_name = cache::full_key(to);

	bool moved = change_watched(key, [&](const Present &now, RedisWatch &watch, bool *) {
		std::string ms = std::to_string(std::max<int64>(now.left_ms, 1));
		RedisWatch::Command store{"SET", new_name, now.json, "PX", ms};

		if (now.left_ms < 0)
			store.resize(3);
		return watch.execute_all({store, {"UNLINK", name}});
	});

	/* A commit that has ended the old one meanwhile does not know the new one. */
	if (!moved || !look(key).ended)
		return moved;
	(void) ask({"UNLINK", new_name});
	return false;
}

/* -------------------------------------------------------------------------
 * All sessions
 * -------------------------------------------------------------------------
 */

/*
 * Calls take(sid, json, left_ms) for every session, in bounded steps; one that is there
 * from the first step to the last is not missed, and none is given twice.
 */
template <typename Take>
void
for_each_session(Take &&take)
{
	std::string prefix = cache::full_key(kKeyPrefix);
	std::string match = invalidation::glob_escape(prefix) + "*";
	std::unordered_set<std::string> given;
	std::string cursor = "0";
	pg::ExchangeOptions options;

	do
	{
		redis::Request request;
		pg::RedisServer server;

		request.add({"SCAN", cursor, "MATCH", match, "COUNT", kScanStep, "TYPE", "string"});

		Reply step = std::move(pg::redis_exchange(request, options, &server).front());

		expect(step.is_array() && step.elements.size() == 2 && step.elements[1].is_array(), step);
		options.only_connection = server.connection; /* a cursor is of one life of one server */
		cursor = std::move(step.elements[0].text);

		std::vector<Reply> &names = step.elements[1].elements;

		for (size_t first = 0; first < names.size(); first += kAskedAtOnce)
		{
			size_t end = std::min(first + kAskedAtOnce, names.size());
			redis::Request values;

			for (size_t i = first; i < end; ++i)
				values.add({"GET", names[i].text}).add({"PTTL", names[i].text});

			std::vector<Reply> replies = pg::redis_exchange(values, options);

			for (size_t i = first; i < end; ++i)
			{
				const Reply &value = replies[2 * (i - first)];
				const Reply &left = replies[2 * (i - first) + 1];

				if (value.is_error() && value.text.rfind("WRONGTYPE", 0) == 0)
					continue;
				expect(value.is_nil() || value.is_string(), value);
				expect(left.kind == Reply::Kind::kInteger, left);
				if (value.is_string() && names[i].text.size() > prefix.size() &&
				    given.insert(names[i].text).second)
					take(std::string_view(names[i].text).substr(prefix.size()),
					     std::string_view(value.text), left.integer);
			}
			pg::call([] { CHECK_FOR_INTERRUPTS(); });
		}
	} while (cursor != "0");
}

/* -------------------------------------------------------------------------
 * Encodings: JSON is UTF-8 there and what the database has here
 * -------------------------------------------------------------------------
 */

std::string_view
to_utf8(std::string_view text)
{
	char *converted = pg_server_to_any(text.data(), static_cast<int>(text.size()), PG_UTF8);

	return converted == text.data() ? text : std::string_view(converted);
}

/*
 * Somebody else has written it: what the server says about text that it cannot take would
 * show some of it.
 */
Jsonb *
to_jsonb(const std::string &json)
{
	try
	{
		if (json.find('\0') != std::string::npos)
			throw Error(kInvalidTextRepresentation, "session in Redis cannot be read as jsonb",
			            "It has a zero byte.");
		return pg::call([&] {
			char *text = pg_any_to_server(json.c_str(), static_cast<int>(json.size()), PG_UTF8);

			return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
		});
	}
	catch (const pg::PgError &error)
	{
		if (ERRCODE_TO_CATEGORY(error.edata()->sqlerrcode) != ERRCODE_DATA_EXCEPTION)
			throw;

		SqlState state;

		strlcpy(state.code, unpack_sql_state(error.edata()->sqlerrcode), sizeof(state.code));
		throw Error(state, "session in Redis cannot be read as jsonb",
		            "What PostgreSQL says to it begins: " +
		                std::string(error.edata()->message).substr(0, 40) + ".");
	}
}

} /* namespace */

Jsonb *
get_from_redis(const Sid &sid)
{
	return pg::guard([&]() -> Jsonb * {
		auto json = read(sid.key);

		return json ? to_jsonb(*json) : nullptr;
	});
}

void
set_in_redis(const Sid &sid, std::string_view json, int64 asked_ms)
{
	std::string_view utf8 = to_utf8(json);

	pg::guard([&] {
		policy::SessionLife life = policy::life_when_set(
		    utf8, asked_ms, pg::session_ttl_s * INT64CONST(1000), cache::now_ms());

		if (life.ms > 0)
			write(sid.key, life.json, life.ms);
		else
			(void) remove(sid.key);
	});
}

bool
touch_in_redis(const Sid &sid)
{
	return pg::guard([&] { return touch(sid.key); });
}

bool
destroy_in_redis(const Sid &sid)
{
	return pg::guard([&] { return remove(sid.key); });
}

bool
move_in_redis(const Sid &sid, const Sid &to)
{
	return pg::guard([&] { return move(sid.key, to.key); });
}

/* Those of these sessions, in ascending order, that have not been ended. */
static std::vector<std::string_view>
living_among(const std::vector<std::string> &keys)
{
	std::vector<std::string_view> names(keys.begin(), keys.end());
	auto ended = std::make_unique<bool[]>(names.size());
	std::vector<std::string_view> living;

	pg::call([&] {
		auto count = static_cast<int>(names.size());

		invalidation::mark_collected_removals(names.data(), count, ended.get());
		PushActiveSnapshot(GetLatestSnapshot());
		invalidation::mark_pending_removals(names.data(), count, ended.get(), GetActiveSnapshot());
		PopActiveSnapshot();
	});
	for (size_t i = 0; i < names.size(); ++i)
		if (!ended[i])
			living.push_back(names[i]);
	return living;
}

int64
destroy_all_in_redis(std::string_view field, std::string_view value)
{
	std::string_view utf8_field = to_utf8(field);
	std::string_view utf8_value = to_utf8(value);

	return pg::guard([&] {
		std::vector<std::string> keys;

		for_each_session([&](std::string_view sid, std::string_view json, int64) {
			if (policy::has_field(json, utf8_field, utf8_value))
				keys.emplace_back(kKeyPrefix).append(sid);
		});
		std::sort(keys.begin(), keys.end());

		auto living = living_among(keys);

		for (std::string_view key : living)
			pg::call([&] { invalidation::collect_session(key); });
		return static_cast<int64>(living.size());
	});
}

void
list_redis(TakeListed take, void *arg)
{
	pg::guard([&] {
		for_each_session([&](std::string_view sid, std::string_view json, int64 left_ms) {
			pg::call([&] {
				Listed listed = {shown(fingerprint(sid)),
				                 GetCurrentTimestamp() + std::min(left_ms, cache::kMaxTtlMs) * 1000,
				                 left_ms >= 0, json};

				take(listed, arg);
			});
		});
	});
}

} /* namespace cache_ext::sessions */
