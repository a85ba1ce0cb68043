/*-------------------------------------------------------------------------
 *
 * functions.cpp
 *		cache_invalidate() and its family: what SQL says by name.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/items.hpp"
#include "pg/memory.hpp"

extern "C" {
#include "catalog/pg_type.h"
#include "utils/array.h"

PG_FUNCTION_INFO_V1(cache_ext_invalidate);
PG_FUNCTION_INFO_V1(cache_ext_invalidate_tags);
PG_FUNCTION_INFO_V1(cache_ext_invalidate_pattern);
PG_FUNCTION_INFO_V1(cache_ext_publish);
}

namespace cache_ext::invalidation {

static void
refuse_null(const char *what)
{
	ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", what)));
}

/* All names are checked before the first is collected. */
static void
collect_array(FunctionCallInfo fcinfo, const char *what, void (*collect)(std::string_view))
{
	Datum *elements;
	bool *nulls;
	int count;

	if (PG_ARGISNULL(0))
		refuse_null(what);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls,
	                  &count);
	for (int i = 0; i < count; ++i)
	{
		if (nulls[i])
			refuse_null(what);
		elements[i] = PointerGetDatum(PG_DETOAST_DATUM_PACKED(elements[i]));
		check_name(pg::view(DatumGetPointer(elements[i])), what);
		check_allowed(pg::view(DatumGetPointer(elements[i])), what);
	}
	for (int i = 0; i < count; ++i)
		collect(pg::view(DatumGetPointer(elements[i])));
}

} /* namespace cache_ext::invalidation */

extern "C" {

Datum
cache_ext_invalidate(PG_FUNCTION_ARGS)
{
	using namespace cache_ext::invalidation;

	PreventCommandIfReadOnly("cache_invalidate()");
	collect_array(fcinfo, "key", collect_key);
	PG_RETURN_VOID();
}

Datum
cache_ext_invalidate_tags(PG_FUNCTION_ARGS)
{
	using namespace cache_ext::invalidation;

	PreventCommandIfReadOnly("cache_invalidate_tags()");
	collect_array(fcinfo, "tag", collect_tag);
	PG_RETURN_VOID();
}

Datum
cache_ext_invalidate_pattern(PG_FUNCTION_ARGS)
{
	using namespace cache_ext::invalidation;

	PreventCommandIfReadOnly("cache_invalidate_pattern()");
	if (PG_ARGISNULL(0))
		refuse_null("pattern");
	check_allowed(cache_ext::pg::view(PG_GETARG_TEXT_PP(0)), "pattern");
	collect_pattern(cache_ext::pg::view(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_VOID();
}

Datum
cache_ext_publish(PG_FUNCTION_ARGS)
{
	using namespace cache_ext::invalidation;

	PreventCommandIfReadOnly("cache_publish()");
	if (PG_ARGISNULL(0))
		refuse_null("channel");
	if (PG_ARGISNULL(1))
		refuse_null("message");
	check_channel(cache_ext::pg::view(PG_GETARG_TEXT_PP(0)));
	check_allowed(cache_ext::pg::view(PG_GETARG_TEXT_PP(0)), "channel");
	collect_publish(cache_ext::pg::view(PG_GETARG_TEXT_PP(0)),
	                cache_ext::pg::view(PG_GETARG_TEXT_PP(1)));
	PG_RETURN_VOID();
}
}
