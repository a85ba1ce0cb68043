/*-------------------------------------------------------------------------
 *
 * read_functions.cpp
 *		The functions that read, as SQL calls them.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/cache/read.hpp"
#include "pg/guard.hpp"
#include "pg/memory.hpp"

extern "C" {
PG_FUNCTION_INFO_V1(cache_ext_get);
}

using namespace cache_ext;

extern "C" {

/* cache_get(key, query, ttl, tags, dialect) */
Datum
cache_ext_get(PG_FUNCTION_ARGS)
{
	cache::Ask ask{};
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
}
