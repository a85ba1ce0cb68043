/*-------------------------------------------------------------------------
 *
 * query_functions.cpp
 *		cache_query(): the rows of a query as rows.
 *
 * What is cached is the text of each column, an array of arrays in JSON with the
 * columns' names first; the caller's column list says which types to read
 * them as.  A hit and a miss go the same way, so they give the same.
 *
 *-------------------------------------------------------------------------
 */
#include <string>

#include "core/base/error.hpp"
#include "ext/cache/read.hpp"
#include "pg/guard.hpp"
#include "pg/memory.hpp"

extern "C" {
#include "catalog/pg_type.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "utils/array.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(cache_ext_query);
}

namespace cache_ext::cache {

namespace {

struct Texts
{
	const char **texts;
	int count;
};

Texts
arguments_of(FunctionCallInfo fcinfo, int number)
{
	Datum *elements;
	bool *nulls;
	Texts result = {nullptr, 0};

	if (PG_ARGISNULL(number))
		return result;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(number), TEXTOID, -1, false, TYPALIGN_INT, &elements,
	                  &nulls, &result.count);
	result.texts = static_cast<const char **>(palloc0(sizeof(char *) * Max(result.count, 1)));
	for (int i = 0; i < result.count; ++i)
		if (!nulls[i])
			result.texts[i] = TextDatumGetCString(elements[i]);
	return result;
}

/* 'query:' and the SHA-256 of query and arguments, which nobody can make collide. */
char *
key_of(const char *query, const Texts &arguments)
{
	pg_cryptohash_ctx *hash = pg_cryptohash_create(PG_SHA256);
	uint8 digest[PG_SHA256_DIGEST_LENGTH];
	StringInfo key = makeStringInfo();
	auto add = [&](const char *text) {
		uint8 there = text != nullptr;

		/* With its end, so that two neighbours cannot be cut differently. */
		if (pg_cryptohash_update(hash, &there, 1) < 0 ||
		    (text != nullptr && pg_cryptohash_update(hash, reinterpret_cast<const uint8 *>(text),
		                                             strlen(text) + 1) < 0))
			elog(ERROR, "could not hash a query: %s", pg_cryptohash_error(hash));
	};

	if (hash == nullptr || pg_cryptohash_init(hash) < 0)
		elog(ERROR, "could not hash a query");
	add(query);
	for (int i = 0; i < arguments.count; ++i)
		add(arguments.texts[i]);
	if (pg_cryptohash_final(hash, digest, sizeof(digest)) < 0)
		elog(ERROR, "could not hash a query: %s", pg_cryptohash_error(hash));
	pg_cryptohash_free(hash);
	appendStringInfoString(key, "query:");
	for (uint8 byte : digest)
		appendStringInfo(key, "%02x", byte);
	return key->data;
}

/* How the caller wants the columns. */
struct Columns
{
	TupleDesc row;
	FmgrInfo *inputs;
	Oid *elements;
};

Columns
columns_of(TupleDesc row)
{
	Columns columns;

	columns.row = row;
	columns.inputs = static_cast<FmgrInfo *>(palloc(sizeof(FmgrInfo) * row->natts));
	columns.elements = static_cast<Oid *>(palloc(sizeof(Oid) * row->natts));
	for (int i = 0; i < row->natts; ++i)
	{
		Oid function;

		getTypeInputInfo(TupleDescAttr(row, i)->atttypid, &function, &columns.elements[i]);
		fmgr_info(function, &columns.inputs[i]);
	}
	return columns;
}

[[noreturn]] void
refuse_columns(int wanted, int there)
{
	ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
	                errmsg("query of cache_query has %d columns, but the column list names %d",
	                       there, wanted)));
	pg_unreachable();
}

/* Whoever may store under the key can have stored something else there. */
[[noreturn]] void
refuse_form(const char *key)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
	                errmsg("cached rows of cache_query cannot be read"),
	                errdetail("What lies under key \"%s\" is no array of rows.", key),
	                errhint("Call cache_delete() for the key.")));
	pg_unreachable();
}

/* One inner array; the first one, of names, only has to be as long as the column list. */
void
put_row(ReturnSetInfo *result, const Columns &columns, const char *key, JsonbContainer *array,
        bool is_header)
{
	int count = static_cast<int>(JsonContainerSize(array));

	if (count != columns.row->natts)
		refuse_columns(columns.row->natts, count);
	if (is_header)
		return;

	auto *values = static_cast<Datum *>(palloc0(sizeof(Datum) * Max(count, 1)));
	auto *nulls = static_cast<bool *>(palloc0(sizeof(bool) * Max(count, 1)));

	for (int i = 0; i < count; ++i)
	{
		JsonbValue *value = getIthJsonbValueFromContainer(array, static_cast<uint32>(i));
		char *text = nullptr;

		nulls[i] = value->type == jbvNull;
		if (!nulls[i] && value->type != jbvString)
			refuse_form(key);
		if (!nulls[i])
			text = pnstrdup(value->val.string.val, value->val.string.len);
		values[i] = InputFunctionCall(&columns.inputs[i], text, columns.elements[i],
		                              TupleDescAttr(columns.row, i)->atttypmod);
	}
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

void
put_rows(ReturnSetInfo *result, const char *key, text *rows)
{
	Columns columns = columns_of(result->setDesc);
	MemoryContext scratch =
	    AllocSetContextCreate(CurrentMemoryContext, "cache_ext row", ALLOCSET_DEFAULT_SIZES);
	Jsonb *json =
	    DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text_to_cstring(rows))));

	if (!JB_ROOT_IS_ARRAY(json) || JB_ROOT_IS_SCALAR(json))
		refuse_form(key);
	for (uint32 i = 0; i < JsonContainerSize(&json->root); ++i)
	{
		MemoryContext before = MemoryContextSwitchTo(scratch);
		JsonbValue *row = getIthJsonbValueFromContainer(&json->root, i);

		if (row->type != jbvBinary || !JsonContainerIsArray(row->val.binary.data))
			refuse_form(key);
		put_row(result, columns, key, row->val.binary.data, i == 0);
		MemoryContextSwitchTo(before);
		MemoryContextReset(scratch);
	}
	MemoryContextDelete(scratch);
}

} /* namespace */

} /* namespace cache_ext::cache */

using namespace cache_ext;

extern "C" {

/* cache_query(query, args, ttl, tags) */
Datum
cache_ext_query(PG_FUNCTION_ARGS)
{
	auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
	cache::Ask ask{};
	cache::Texts arguments;

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0))
		return Datum(0);
	ask.query = text_to_cstring(PG_GETARG_TEXT_PP(0));
	arguments = cache::arguments_of(fcinfo, 1);
	ask.argument_count = arguments.count;
	ask.arguments = arguments.texts;
	ask.ttl_ms = cache::ttl_argument(fcinfo, 2);
	ask.tags = cache::tags_argument(fcinfo, 3);
	ask.as_text_rows = true;

	const char *key = cache::key_of(ask.query, arguments);

	ask.key = key;

	text *rows = pg::guard([&] { return cache::get(ask); });

	cache::put_rows(result, key, rows);
	return Datum(0);
}
}
