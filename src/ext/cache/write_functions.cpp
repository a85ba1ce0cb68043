/*-------------------------------------------------------------------------
 *
 * write_functions.cpp
 *		The functions that take effect at commit, as SQL calls them.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/cache/arguments.hpp"
#include "ext/invalidation/items.hpp"
#include "pg/memory.hpp"

extern "C" {
PG_FUNCTION_INFO_V1(cache_ext_set);
PG_FUNCTION_INFO_V1(cache_ext_delete);
}

using namespace cache_ext;

extern "C" {

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
	keys = cache::keys_argument(fcinfo, 0);
	for (int i = 0; i < keys.count; ++i)
		invalidation::collect_key(keys.names[i]);
	PG_RETURN_INT64(keys.count);
}
}
