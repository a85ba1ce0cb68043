/*-------------------------------------------------------------------------
 *
 * value_text.cpp
 *		Writing values into names; see value_text.hpp.
 *
 * The text is the one of to_jsonb() with the quotes of strings taken off, and
 * no setting of the session changes it: else two sessions would invalidate
 * different keys for the same row.  Points in time are those of UTC.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/value_text.hpp"

extern "C" {
#include "catalog/pg_type.h"
#include "common/shortest_dec.h"
#include "nodes/makefuncs.h"
#include "utils/datetime.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
}

namespace cache_ext::invalidation {

using Way = ValueText::Way;

static Way
way_of(Oid type)
{
	switch (type)
	{
	case INT2OID:
		return Way::kInt2;
	case INT4OID:
		return Way::kInt4;
	case INT8OID:
		return Way::kInt8;
	case TEXTOID:
	case VARCHAROID:
	case BPCHAROID:
		return Way::kText;
	case BOOLOID:
		return Way::kBoolean;
	case FLOAT4OID:
		return Way::kFloat4;
	case FLOAT8OID:
		return Way::kFloat8;
	case DATEOID:
	case TIMESTAMPOID:
	case TIMESTAMPTZOID:
		return Way::kDateTime;
	case NUMERICOID:
	case UUIDOID:
	case NAMEOID:
	case OIDOID:
		return Way::kOutput;
	default:
		return type_is_enum(type) ? Way::kOutput : Way::kJsonb;
	}
}

/* to_jsonb() finds the type of its argument in the call's expression. */
static void
prepare_to_jsonb(ValueText *text, MemoryContext context)
{
	MemoryContext caller = MemoryContextSwitchTo(context);
	Const *argument = makeNullConst(text->type, -1, get_typcollation(text->type));
	FuncExpr *call = makeFuncExpr(F_TO_JSONB, JSONBOID, list_make1(argument), InvalidOid,
	                              InvalidOid, COERCE_EXPLICIT_CALL);

	fmgr_info_cxt(F_TO_JSONB, &text->function, context);
	fmgr_info_set_expr(reinterpret_cast<Node *>(call), &text->function);
	MemoryContextSwitchTo(caller);
}

void
prepare_value_text(ValueText *text, Oid type, MemoryContext context)
{
	text->type = getBaseType(type);
	text->way = way_of(text->type);
	if (text->way == Way::kJsonb)
		prepare_to_jsonb(text, context);
	else if (text->way == Way::kOutput)
	{
		Oid function;
		bool varlena;

		getTypeOutputInfo(text->type, &function, &varlena);
		fmgr_info_cxt(function, &text->function, context);
	}
}

static void
append_integer(StringInfo out, int64 value)
{
	char digits[MAXINT8LEN + 1];

	appendBinaryStringInfo(out, digits, pg_lltoa(value, digits));
}

/* JSON numbers are numerics: 1e+20 is written out, and there is no negative zero. */
static void
append_float(StringInfo out, char *shortest)
{
	char first = shortest[0] == '-' ? shortest[1] : shortest[0];

	if (first >= '0' && first <= '9')
		shortest = DatumGetCString(DirectFunctionCall1(
		    numeric_out, DirectFunctionCall3(numeric_in, CStringGetDatum(shortest),
		                                     ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1))));
	appendStringInfoString(out, shortest);
}

static Datum
to_jsonb_with_pinned_settings(FmgrInfo *function, Datum value)
{
	static const char *const kPinned[][2] = {
	    {"DateStyle", "ISO, YMD"}, {"IntervalStyle", "postgres"},
	    {"TimeZone", "UTC"},       {"extra_float_digits", "1"},
	    {"bytea_output", "hex"},   {"lc_monetary", "C"},
	    {"xmlbinary", "base64"},   {"search_path", "pg_catalog, pg_temp"},
	};
	int level = NewGUCNestLevel();

	for (auto &setting : kPinned)
		(void) set_config_option(setting[0], setting[1], PGC_USERSET, PGC_S_SESSION,
		                         GUC_ACTION_SAVE, true, 0, false);

	Datum result = FunctionCall1(function, value);

	AtEOXact_GUC(true, level);
	return result;
}

static bool
append_jsonb(StringInfo out, Jsonb *jsonb)
{
	JsonbValue scalar;

	if (!JsonbExtractScalar(&jsonb->root, &scalar))
	{
		(void) JsonbToCString(out, &jsonb->root, VARSIZE(jsonb));
		return true;
	}
	switch (scalar.type)
	{
	case jbvNull:
		return false;
	case jbvString:
		appendBinaryStringInfo(out, scalar.val.string.val, scalar.val.string.len);
		return true;
	case jbvNumeric:
		appendStringInfoString(out, DatumGetCString(DirectFunctionCall1(
		                                numeric_out, NumericGetDatum(scalar.val.numeric))));
		return true;
	case jbvBool:
		appendStringInfoString(out, scalar.val.boolean ? "true" : "false");
		return true;
	default:
		elog(ERROR, "unexpected type of JSON scalar: %d", static_cast<int>(scalar.type));
	}
	return false;
}

bool
append_value_text(StringInfo out, ValueText *text, Datum value)
{
	switch (text->way)
	{
	case Way::kInt2:
		append_integer(out, DatumGetInt16(value));
		return true;
	case Way::kInt4:
		append_integer(out, DatumGetInt32(value));
		return true;
	case Way::kInt8:
		append_integer(out, DatumGetInt64(value));
		return true;
	case Way::kText: {
		auto *bytes = PG_DETOAST_DATUM_PACKED(value);

		appendBinaryStringInfo(out, VARDATA_ANY(bytes), static_cast<int>(VARSIZE_ANY_EXHDR(bytes)));
		return true;
	}
	case Way::kBoolean:
		appendStringInfoString(out, DatumGetBool(value) ? "true" : "false");
		return true;
	case Way::kFloat4: {
		char digits[FLOAT_SHORTEST_DECIMAL_LEN];

		float_to_shortest_decimal_buf(DatumGetFloat4(value), digits);
		append_float(out, digits);
		return true;
	}
	case Way::kFloat8: {
		char digits[DOUBLE_SHORTEST_DECIMAL_LEN];

		double_to_shortest_decimal_buf(DatumGetFloat8(value), digits);
		append_float(out, digits);
		return true;
	}
	case Way::kDateTime: {
		char written[MAXDATELEN + 1];
		int utc = 0;

		appendStringInfoString(out, JsonEncodeDateTime(written, value, text->type, &utc));
		return true;
	}
	case Way::kOutput:
		appendStringInfoString(out, OutputFunctionCall(&text->function, value));
		return true;
	case Way::kJsonb:
		return append_jsonb(out,
		                    DatumGetJsonbP(to_jsonb_with_pinned_settings(&text->function, value)));
	}
	return true;
}

} /* namespace cache_ext::invalidation */
