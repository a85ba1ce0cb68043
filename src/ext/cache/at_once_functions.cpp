/*-------------------------------------------------------------------------
 *
 * at_once_functions.cpp
 *		The functions that take effect at once, as SQL calls them.
 *
 *-------------------------------------------------------------------------
 */
#include "core/base/error.hpp"
#include "ext/cache/arguments.hpp"
#include "ext/cache/at_once.hpp"
#include "ext/invalidation/items.hpp"
#include "pg/guard.hpp"
#include "pg/memory.hpp"

extern "C" {
PG_FUNCTION_INFO_V1(cache_ext_add);
PG_FUNCTION_INFO_V1(cache_ext_expire);
PG_FUNCTION_INFO_V1(cache_ext_incr);
}

using namespace cache_ext;

/* What all begin with: nobody who may only read, and neither a NULL key nor a NULL that follows it.
 */
static std::string_view
begin_at_once(FunctionCallInfo fcinfo, const char *function, const char *second_argument)
{
	PreventCommandIfReadOnly(function);
	if (PG_ARGISNULL(0))
		cache::refuse_null("cache key");
	if (PG_ARGISNULL(1))
		cache::refuse_null(second_argument);
	return cache::key_argument(fcinfo, 0);
}

/* Has this very transaction set it?  Nobody else sees that yet. */
static bool
is_set_here(std::string_view key)
{
	return invalidation::have_items() &&
	       invalidation::pending_value(key).state == invalidation::Pending::kSet;
}

extern "C" {

/* cache_add(key, value, ttl): was there none? */
Datum
cache_ext_add(PG_FUNCTION_ARGS)
{
	std::string_view key = begin_at_once(fcinfo, "cache_add()", "value of a cache entry");
	std::string_view value = pg::view(PG_GETARG_TEXT_PP(1));
	int64 ttl_ms = cache::ttl_argument(fcinfo, 2);

	if (is_set_here(key))
		PG_RETURN_BOOL(false);
	if (cache::is_too_large(value.size()))
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
		                errmsg("value of a cache entry is too large to be added"),
		                errdetail("It has %zu bytes.", value.size()),
		                errhint("Increase cache_ext.max_value_size.")));
	PG_RETURN_BOOL(pg::guard([&] { return cache::add_at_once(key, value, ttl_ms); }));
}

/* cache_expire(key, ttl): was there an entry? */
Datum
cache_ext_expire(PG_FUNCTION_ARGS)
{
	std::string_view key = begin_at_once(fcinfo, "cache_expire()", "ttl of a cache entry");
	int64 ttl_ms = cache::ttl_argument(fcinfo, 1);

	PG_RETURN_BOOL(pg::guard([&] { return cache::expire_at_once(key, ttl_ms); }));
}

/* cache_incr(key, by): the sum */
Datum
cache_ext_incr(PG_FUNCTION_ARGS)
{
	std::string_view key = begin_at_once(fcinfo, "cache_incr()", "increment");
	int64 by = PG_GETARG_INT64(1);

	PG_RETURN_INT64(pg::guard([&] { return cache::increase_at_once(key, by); }));
}
}
