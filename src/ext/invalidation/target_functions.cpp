/*-------------------------------------------------------------------------
 *
 * target_functions.cpp
 *		What the options of a target come to; the rest of cache_target_create()
 *		is SQL.
 *
 *-------------------------------------------------------------------------
 */
#include "core/invalidation/dialect.hpp"
#include "pg/guard.hpp"
#include "pg/memory.hpp"

extern "C" {
#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/array.h"

PG_FUNCTION_INFO_V1(cache_ext_read_dialect);

Datum
cache_ext_read_dialect(PG_FUNCTION_ARGS)
{
	using namespace cache_ext;
	text *name = PG_GETARG_TEXT_PP(0);
	Datum *elements[2];
	int counts[2];
	TupleDesc desc;
	Datum values[2];
	bool nulls[2] = {};
	text *prefix = nullptr;
	bool tags = false;

	for (int i = 0; i < 2; ++i)
		deconstruct_array(PG_GETARG_ARRAYTYPE_P(i + 1), TEXTOID, -1, false, TYPALIGN_INT,
		                  &elements[i], nullptr, &counts[i]);
	if (counts[0] != counts[1])
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("options need as many values as names")));
	if (get_call_result_type(fcinfo, nullptr, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	pg::guard([&] {
		invalidation::DialectOptions options;

		for (int i = 0; i < counts[0]; ++i)
			options.emplace_back(pg::view(DatumGetTextPP(elements[0][i])),
			                     pg::view(DatumGetTextPP(elements[1][i])));

		invalidation::Dialect dialect = invalidation::read_dialect(pg::view(name), options);

		prefix = pg::call([&] {
			return cstring_to_text_with_len(dialect.prefix.data(),
			                                static_cast<int>(dialect.prefix.size()));
		});
		tags = dialect.tags;
	});

	values[0] = PointerGetDatum(prefix);
	values[1] = BoolGetDatum(tags);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
}
