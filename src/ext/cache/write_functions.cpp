/*-------------------------------------------------------------------------
 *
 * write_functions.cpp
 *		The functions that take effect at commit, as SQL calls them.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/cache/arguments.hpp"
#include "ext/cache/counters.hpp"
#include "ext/invalidation/items.hpp"
#include "pg/memory.hpp"
#include "pg/redis_link.hpp"

extern "C" {
#include "utils/jsonb.h"

PG_FUNCTION_INFO_V1(cache_ext_set);
PG_FUNCTION_INFO_V1(cache_ext_set_many);
PG_FUNCTION_INFO_V1(cache_ext_delete);
PG_FUNCTION_INFO_V1(cache_ext_clear);
}

using namespace cache_ext;

namespace cache_ext::cache {

/* Too large to be stored: what it replaces goes nevertheless. */
static void
collect_value(const invalidation::SetItem &item)
{
	if (is_too_large(item.value.size()))
		invalidation::collect_key(item.key);
	else
	{
		invalidation::collect_set(item);
		count(pg::redis_configured() ? Tier::kRedis : Tier::kMemory, Event::kSet);
	}
}

/* The text of a member's value: a string as it is, anything else as JSON. */
static std::string_view
text_of(JsonbValue *value)
{
	if (value->type == jbvNull)
		refuse_null("value of a cache entry");
	if (value->type == jbvString)
		return {value->val.string.val, static_cast<size_t>(value->val.string.len)};

	Jsonb *json = JsonbValueToJsonb(value);
	StringInfo text = makeStringInfo();

	(void) JsonbToCString(text, &json->root, VARSIZE(json));
	return {text->data, static_cast<size_t>(text->len)};
}

/* The members of an object as items, all checked before the first is collected. */
static List *
entries_argument(Jsonb *entries)
{
	JsonbIterator *iterator = JsonbIteratorInit(&entries->root);
	List *items = NIL;
	JsonbIteratorToken token;
	JsonbValue value;
	invalidation::SetItem *item = nullptr;

	if (!JB_ROOT_IS_OBJECT(entries))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("entries of the cache must be a JSON object"),
		                errhint("Give an object of keys and values.")));
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			item = static_cast<invalidation::SetItem *>(palloc0(sizeof(*item)));
			item->key = {value.val.string.val, static_cast<size_t>(value.val.string.len)};
			check_key(item->key);
			items = lappend(items, item);
		}
		else if (token == WJB_VALUE)
			item->value = text_of(&value);
	}
	return items;
}

} /* namespace cache_ext::cache */

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
	cache::collect_value(item);
	PG_RETURN_VOID();
}

/* cache_set_many(entries, ttl, tags) */
Datum
cache_ext_set_many(PG_FUNCTION_ARGS)
{
	List *items;
	int64 ttl_ms;
	cache::Names tags;
	ListCell *cell;

	PreventCommandIfReadOnly("cache_set_many()");
	if (PG_ARGISNULL(0))
		cache::refuse_null("entries of the cache");
	items = cache::entries_argument(PG_GETARG_JSONB_P(0));
	ttl_ms = cache::ttl_argument(fcinfo, 1);
	tags = cache::tags_argument(fcinfo, 2);
	foreach (cell, items)
	{
		auto *item = static_cast<invalidation::SetItem *>(lfirst(cell));

		item->ttl_ms = ttl_ms;
		item->tags = tags.names;
		item->tag_count = tags.count;
		cache::collect_value(*item);
	}
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
	cache::count(cache::Tier::kMemory, cache::Event::kDelete, static_cast<uint64>(keys.count));
	if (pg::redis_configured())
		cache::count(cache::Tier::kRedis, cache::Event::kDelete, static_cast<uint64>(keys.count));
	PG_RETURN_INT64(keys.count);
}

/* cache_clear(): a new epoch for own entries */
Datum
cache_ext_clear(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	PreventCommandIfReadOnly("cache_clear()");
	invalidation::collect_clear();
	PG_RETURN_VOID();
}
}
