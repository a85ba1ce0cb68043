/*-------------------------------------------------------------------------
 *
 * cache.cpp
 *		cache_get, cache_set and cache_delete as SQL calls them.
 *
 * Arguments become plain data here and are checked; what a transaction may see
 * and store is decided here; the Redis tier is tier.cpp, the query query.cpp.
 *
 *-------------------------------------------------------------------------
 */
#include <optional>
#include <vector>

#include "core/invalidation/bucket.hpp"
#include "ext/cache/cache.hpp"
#include "ext/cache/query.hpp"
#include "ext/cache/tier.hpp"
#include "ext/invalidation/items.hpp"
#include "pg/guard.hpp"
#include "pg/memory.hpp"
#include "pg/redis_link.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
}

namespace cache_ext::cache {

/* -------------------------------------------------------------------------
 * Arguments
 * -------------------------------------------------------------------------
 */

constexpr int64 kMaxTtlMs = INT64CONST(10000) * 366 * 24 * 3600 * 1000;

static void
refuse_null(const char *what)
{
	ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", what)));
}

/*
 * 22023 for a name that no entry may have: empty, too long, or one under which
 * the cache keeps versions and the floor, where a value would break them.
 */
static void
check_key(std::string_view key)
{
	bool reserved = key == "floor";

	invalidation::check_name(key, "cache key");
	if (key.size() > 2 && key.substr(0, 2) == "v:")
		reserved = key.find_first_not_of("0123456789", 2) == std::string_view::npos;
	if (reserved)
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		         errmsg("cache key \"%.*s\" is reserved", static_cast<int>(key.size()), key.data()),
		         errdetail("The cache keeps its own data under this name.")));
}

static std::string_view
key_argument(FunctionCallInfo fcinfo, int number)
{
	std::string_view key = pg::view(PG_GETARG_TEXT_PP(number));

	check_key(key);
	return key;
}

/* Milliseconds, 0 for NULL; months count 30 days, as elsewhere in PostgreSQL. */
static int64
ttl_argument(FunctionCallInfo fcinfo, int number)
{
	if (PG_ARGISNULL(number))
		return 0;

	const Interval *ttl = PG_GETARG_INTERVAL_P(number);
	double days = static_cast<double>(ttl->month) * DAYS_PER_MONTH + ttl->day;
	double ms = days * (SECS_PER_DAY * 1000.0) + static_cast<double>(ttl->time) / 1000.0;

	if (!(ms > 0.0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("ttl of a cache entry must be greater than zero")));
	if (ms > static_cast<double>(kMaxTtlMs))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("ttl of a cache entry is too long")));
	return ms < 1.0 ? 1 : static_cast<int64>(ms);
}

static bool
dialect_argument(FunctionCallInfo fcinfo, int number)
{
	if (PG_ARGISNULL(number))
		return false;

	std::string_view dialect = pg::view(PG_GETARG_TEXT_PP(number));

	if (dialect != "plain")
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("unknown dialect \"%.*s\" of a cache entry",
		                       static_cast<int>(dialect.size()), dialect.data()),
		                errhint("Give 'plain' for a bare value, or nothing.")));
	return true;
}

static bool
is_too_large(size_t size)
{
	return size > static_cast<size_t>(pg::max_value_size_kb) * 1024;
}

struct Names
{
	std::string_view *names;
	int count;
};

/* The elements of a text array in the current context; a NULL array is an empty one. */
static Names
names_argument(FunctionCallInfo fcinfo, int number, const char *what)
{
	Datum *elements;
	bool *nulls;
	Names result = {nullptr, 0};

	if (PG_ARGISNULL(number))
		return result;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(number), TEXTOID, -1, false, TYPALIGN_INT, &elements,
	                  &nulls, &result.count);
	result.names =
	    static_cast<std::string_view *>(palloc(sizeof(std::string_view) * Max(result.count, 1)));
	for (int i = 0; i < result.count; ++i)
	{
		if (nulls[i])
			refuse_null(what);
		result.names[i] = pg::view(DatumGetTextPP(elements[i]));
	}
	return result;
}

static Names
tags_argument(FunctionCallInfo fcinfo, int number)
{
	Names tags = names_argument(fcinfo, number, "tag");

	for (int i = 0; i < tags.count; ++i)
		invalidation::check_name(tags.names[i], "tag");
	return tags;
}

/* -------------------------------------------------------------------------
 * Reading
 * -------------------------------------------------------------------------
 */

/* A call of cache_get, as plain data. */
struct Ask
{
	std::string_view key;
	const char *query; /* null: none */
	int64 ttl_ms;      /* 0: the default */
	Names tags;
	bool plain;
};

/*
 * A REPEATABLE READ transaction has the one snapshot that it has.  So has a
 * parallel query: somebody has declared a function that calls us safe for it.
 */
static bool
may_take_snapshots()
{
	return !IsolationUsesXactSnapshot() && !IsInParallelMode();
}

/*
 * May this transaction use shared values?  Not when it has changed anything
 * that a shared value could miss, and not when it must keep to an old snapshot.
 */
static bool
may_share()
{
	return pg::cache_enabled && may_take_snapshots() && !invalidation::have_items() &&
	       !FullTransactionIdIsValid(GetTopFullTransactionIdIfAny()) && pg::redis_configured();
}

static text *
make_text(std::string_view value)
{
	return pg::call(
	    [&] { return cstring_to_text_with_len(value.data(), static_cast<int>(value.size())); });
}

/*
 * Run the query under a snapshot of now, so that it sees at least all whose
 * invalidations the caller's versions include; the statement around us may
 * have started long ago.  A transaction with a snapshot of its own keeps to it.
 */
static void
answer_by_query(const Ask &ask, Fill *fill, QueryAnswer *answer)
{
	pg::call([&] {
		if (may_take_snapshots())
			PushActiveSnapshot(GetLatestSnapshot());
		else if (IsInParallelMode())
			PushActiveSnapshot(GetActiveSnapshot());
		else
			PushActiveSnapshot(GetTransactionSnapshot());
	});
	if (fill != nullptr)
		fill->note_snapshot();
	pg::call([&] {
		run_query(ask.query, ask.ttl_ms > 0, answer);
		PopActiveSnapshot();
	});
}

static bool
may_store(const Ask &ask, const QueryAnswer &answer)
{
	if (is_too_large(static_cast<size_t>(answer.json.len)))
		return false;
	/* A bare value says nothing about whom it is for. */
	if (answer.personal || (ask.plain && answer.by_settings))
		return false;
	/* The query itself may have called something that writes or collects. */
	return may_share();
}

static std::string_view
load(const Ask &ask, bool share, const std::vector<std::string_view> &tags, Seen &&seen)
{
	QueryAnswer answer;
	std::optional<Fill> fill;

	if (share && !RecoveryInProgress())
	{
		fill.emplace(ask.key, tags, ask.plain);
		if (!fill->begin(std::move(seen)))
			fill.reset();
	}
	answer_by_query(ask, fill ? &*fill : nullptr, &answer);

	std::string_view value(answer.json.data, static_cast<size_t>(answer.json.len));

	if (fill && may_store(ask, answer))
		fill->finish(value, jittered_ttl_ms(ask.ttl_ms), answer.by_settings);
	return value;
}

static text *
get(const Ask &ask)
{
	std::vector<std::string_view> tags(ask.tags.names, ask.tags.names + ask.tags.count);
	bool share = may_share();
	Seen seen;

	if (invalidation::have_items())
	{
		invalidation::PendingValue own =
		    pg::call([&] { return invalidation::pending_value(ask.key); });

		if (own.state == invalidation::Pending::kSet)
			return make_text(own.value);
	}
	if (share)
	{
		Lookup found = look_up(ask.key, tags);

		if (found.outcome == Lookup::Outcome::kHit)
			return make_text(found.value());
		share = found.outcome != Lookup::Outcome::kUnavailable;
		seen = std::move(found.seen);
	}
	if (ask.query == nullptr)
		return nullptr;
	return make_text(load(ask, share, tags, std::move(seen)));
}

} /* namespace cache_ext::cache */

using namespace cache_ext;

extern "C" {

PG_FUNCTION_INFO_V1(cache_ext_get);
PG_FUNCTION_INFO_V1(cache_ext_set);
PG_FUNCTION_INFO_V1(cache_ext_delete);

/* cache_get(key, query, ttl, tags, dialect) */
Datum
cache_ext_get(PG_FUNCTION_ARGS)
{
	cache::Ask ask;
	text *value;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	ask.key = cache::key_argument(fcinfo, 0);
	ask.query = PG_ARGISNULL(1) ? nullptr : text_to_cstring(PG_GETARG_TEXT_PP(1));
	ask.ttl_ms = cache::ttl_argument(fcinfo, 2);
	ask.tags = cache::tags_argument(fcinfo, 3);
	ask.plain = cache::dialect_argument(fcinfo, 4);

	value = pg::guard([&] { return cache::get(ask); });

	if (value == nullptr)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(value);
}

/* cache_set(key, value, ttl, tags, dialect) */
Datum
cache_ext_set(PG_FUNCTION_ARGS)
{
	invalidation::SetItem item;
	cache::Names tags;

	PreventCommandIfReadOnly("cache_set()");
	if (PG_ARGISNULL(0))
		cache::refuse_null("cache key");
	item.key = cache::key_argument(fcinfo, 0);
	if (PG_ARGISNULL(1))
		cache::refuse_null("value of a cache entry");
	item.value = pg::view(PG_GETARG_TEXT_PP(1));
	item.ttl_ms = cache::ttl_argument(fcinfo, 2);
	tags = cache::tags_argument(fcinfo, 3);
	item.tags = tags.names;
	item.tag_count = tags.count;
	item.plain = cache::dialect_argument(fcinfo, 4);
	/* Too large to be stored: what it replaces goes nevertheless. */
	if (cache::is_too_large(item.value.size()))
		invalidation::collect_key(item.key);
	else
		invalidation::collect_set(item);
	PG_RETURN_VOID();
}

/* cache_delete(VARIADIC keys): how many were named */
Datum
cache_ext_delete(PG_FUNCTION_ARGS)
{
	cache::Names keys;

	PreventCommandIfReadOnly("cache_delete()");
	if (PG_ARGISNULL(0))
		cache::refuse_null("cache key");
	keys = cache::names_argument(fcinfo, 0, "cache key");
	for (int i = 0; i < keys.count; ++i)
		cache::check_key(keys.names[i]);
	for (int i = 0; i < keys.count; ++i)
		invalidation::collect_key(keys.names[i]);
	PG_RETURN_INT64(keys.count);
}
}
