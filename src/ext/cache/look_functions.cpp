/*-------------------------------------------------------------------------
 *
 * look_functions.cpp
 *		The functions that look and never load, as SQL calls them:
 *		cache_get_many, cache_exists, cache_ttl and cache_keys.
 *
 * They see what cache_get(key) without a query or loader would give.
 *
 *-------------------------------------------------------------------------
 */
#include <set>
#include <string>
#include <vector>

#include "core/invalidation/bucket.hpp"
#include "core/invalidation/glob.hpp"
#include "ext/cache/arguments.hpp"
#include "ext/cache/cache.hpp"
#include "ext/cache/counters.hpp"
#include "ext/cache/conversation.hpp"
#include "ext/cache/memory.hpp"
#include "ext/cache/read.hpp"
#include "ext/cache/tier.hpp"
#include "ext/invalidation/items.hpp"
#include "ext/invalidation/journal.hpp"
#include "pg/guard.hpp"
#include "pg/memory.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "mb/pg_wchar.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(cache_ext_get_many);
PG_FUNCTION_INFO_V1(cache_ext_exists);
PG_FUNCTION_INFO_V1(cache_ext_ttl);
PG_FUNCTION_INFO_V1(cache_ext_keys);
}

namespace cache_ext::cache {

namespace {

/* What one key has for this transaction. */
struct Look
{
	bool there = false;
	std::string value;
	int64 left_ms = 0; /* -1: it never ends */
};

int64
life_left(const Lookup &found)
{
	if (found.age.fresh_ms > 0)
		return std::max<int64>(found.age.made_at + found.age.fresh_ms - now_ms(), 1);
	return found.age.left_ms;
}

/* Fresh entries of the memory tier; returns the numbers of the keys that have none. */
/* What a look is for. */
enum class For
{
	kValues,    /* a read: it counts as one */
	kExistence, /* no read */
	kLives      /* nor is that; lives that Redis keeps are asked for */
};

std::vector<size_t>
look_into_memory(const std::vector<std::string_view> &keys, For what, std::vector<Look> *looks)
{
	std::vector<size_t> missing;

	for (size_t i = 0; i < keys.size(); ++i)
	{
		MemoryHit found = what == For::kValues ? memory_get(keys[i]) : memory_peek(keys[i]);

		if (found.fresh)
			(*looks)[i] = {true, std::string(found.value),
			               std::max<int64>(to_ms(found.facts.expires_at) - now_ms(), 1)};
		else
			missing.push_back(i);
	}
	return missing;
}

/* The own transaction's sets, or memory and then Redis, all keys in one exchange. */
std::vector<Look>
look_at(const std::vector<std::string_view> &keys, For what)
{
	std::vector<Look> looks(keys.size());

	if (invalidation::have_items())
		for (size_t i = 0; i < keys.size(); ++i)
		{
			std::string_view key = keys[i];
			auto own = pg::call([&] { return invalidation::pending_value(key); });

			if (own.state == invalidation::Pending::kSet)
				looks[i] = {true, std::string(own.value), jittered_ttl_ms(own.ttl_ms)};
		}
	if (!may_share())
		return looks;

	std::vector<size_t> missing = look_into_memory(keys, what, &looks);
	std::vector<std::string_view> asked;

	for (size_t i : missing)
		asked.push_back(keys[i]);
	if (what == For::kValues && memory_available())
	{
		count(Tier::kMemory, Event::kHit, keys.size() - missing.size());
		count(Tier::kMemory, Event::kMiss, missing.size());
	}
	if (asked.empty() || !pg::redis_configured())
		return looks;

	std::vector<Lookup> found = look_up_many(asked, what == For::kLives);

	for (size_t n = 0; n < asked.size(); ++n)
	{
		if (found[n].hit())
			looks[missing[n]] = {true, std::string(found[n].value()), life_left(found[n])};
		if (what == For::kValues)
			count(Tier::kRedis, found[n].hit()                                      ? Event::kHit
			                    : found[n].outcome == Lookup::Outcome::kUnavailable ? Event::kError
			                                                                        : Event::kMiss);
	}
	return looks;
}

void
put_row(ReturnSetInfo *result, const Look &look, std::string_view key)
{
	std::string_view value = look.value;

	pg::call([&] {
		Datum values[] = {
		    PointerGetDatum(cstring_to_text_with_len(key.data(), static_cast<int>(key.size()))),
		    PointerGetDatum(
		        cstring_to_text_with_len(value.data(), static_cast<int>(value.size())))};
		bool nulls[] = {false, false};

		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	});
}

/* -------------------------------------------------------------------------
 * Names
 * -------------------------------------------------------------------------
 */

constexpr const char *kScanStep = "1000";

bool
is_listed(std::string_view name)
{
	return !name.empty() && name.size() <= invalidation::kMaxNameBytes && !is_reserved(name) &&
	       name.substr(0, invalidation::kSessionPrefix.size()) != invalidation::kSessionPrefix &&
	       name.find('\0') == std::string_view::npos &&
	       pg_verify_mbstr(GetDatabaseEncoding(), name.data(), static_cast<int>(name.size()), true);
}

/* Step by step, and each name once: SCAN may give it more often. */
std::set<std::string>
names_in_redis(std::string_view pattern)
{
	std::string prefix = full_key("");
	std::string match = invalidation::glob_escape(prefix);
	std::set<std::string> names;
	std::string cursor = "0";

	match.append(pattern);
	do
	{
		redis::Request request;

		request.add({"SCAN", cursor, "MATCH", match, "COUNT", kScanStep, "TYPE", "string"});

		auto replies = ask(request);

		if (!replies || note_first_refusal(*replies))
			break;

		const redis::Reply &reply = replies->front();

		if (!reply.is_array() || reply.elements.size() != 2 || !reply.elements[1].is_array())
			break;
		cursor = reply.elements[0].text;
		for (const redis::Reply &name : reply.elements[1].elements)
			if (name.text.size() > prefix.size() && is_listed(name.text.substr(prefix.size())))
				names.insert(name.text.substr(prefix.size()));
		pg::call([] { CHECK_FOR_INTERRUPTS(); });
	} while (cursor != "0");
	return names;
}

} /* namespace */

} /* namespace cache_ext::cache */

using namespace cache_ext;

extern "C" {

/* cache_get_many(keys): the present ones, in the order asked */
Datum
cache_ext_get_many(PG_FUNCTION_ARGS)
{
	auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
	cache::Names keys;

	InitMaterializedSRF(fcinfo, 0);
	keys = cache::optional_keys_argument(fcinfo, 0);
	pg::guard([&] {
		std::vector<std::string_view> names(keys.names, keys.names + keys.count);
		std::vector<cache::Look> looks = cache::look_at(names, cache::For::kValues);

		for (size_t i = 0; i < names.size(); ++i)
			if (looks[i].there)
				cache::put_row(result, looks[i], names[i]);
	});
	return Datum(0);
}

Datum
cache_ext_exists(PG_FUNCTION_ARGS)
{
	std::string_view key = cache::key_argument(fcinfo, 0);

	PG_RETURN_BOOL(
	    pg::guard([&] { return cache::look_at({key}, cache::For::kExistence).front().there; }));
}

/* cache_ttl(key): what is left, NULL for none; the longest ttl for what never ends */
Datum
cache_ext_ttl(PG_FUNCTION_ARGS)
{
	std::string_view key = cache::key_argument(fcinfo, 0);
	int64 left_ms = 0;
	bool there = pg::guard([&] {
		cache::Look look = std::move(cache::look_at({key}, cache::For::kLives).front());

		left_ms = look.left_ms;
		return look.there;
	});

	if (!there)
		PG_RETURN_NULL();

	auto *left = static_cast<Interval *>(palloc0(sizeof(Interval)));

	left->time = (left_ms < 0 ? cache::kMaxTtlMs : left_ms) * 1000;
	PG_RETURN_INTERVAL_P(left);
}

/* cache_keys(pattern) */
Datum
cache_ext_keys(PG_FUNCTION_ARGS)
{
	auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
	std::string_view pattern;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	if (PG_ARGISNULL(0))
		return Datum(0);
	pattern = pg::view(PG_GETARG_TEXT_PP(0));
	invalidation::check_pattern(pattern);
	pg::guard([&] {
		std::set<std::string> names =
		    pg::redis_configured() ? cache::names_in_redis(pattern) : std::set<std::string>();

		for (const cache::MemoryListed &entry : cache::memory_list())
			if (entry.valid && invalidation::glob_match(pattern, entry.key))
				names.insert(entry.key);
		for (const std::string &name : names)
		{
			std::string_view view = name;

			pg::call([&] {
				Datum value = PointerGetDatum(
				    cstring_to_text_with_len(view.data(), static_cast<int>(view.size())));
				bool null = false;

				tuplestore_putvalues(result->setResult, result->setDesc, &value, &null);
			});
		}
	});
	return Datum(0);
}
}
