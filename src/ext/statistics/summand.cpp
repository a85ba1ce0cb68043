/*-------------------------------------------------------------------------
 *
 * summand.cpp
 *		Exact numeric values of numbers; see summand.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include <cmath>

#include "core/statistics/exact_decimal.hpp"
#include "ext/statistics/log.hpp"
#include "ext/statistics/summand.hpp"

extern "C" {
#include "catalog/pg_type.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
}

namespace cache_ext::statistics {

static int64
exact_double(double value)
{
	constexpr double kExactIntegers = 9007199254740992.0; /* 2^53 */

	if (std::fabs(value) <= kExactIntegers && value == std::trunc(value))
		return (int64) NumericGetDatum(int64_to_numeric((int64) value));

	char digits[kExactDecimalSize];
	exact_decimal(value, digits);
	return (int64) DirectFunctionCall3(numeric_in, CStringGetDatum(digits),
	                                   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
}

Summand
classify(bool is_float, Datum value)
{
	if (is_float)
	{
		double number = DatumGetFloat8(value);

		if (std::isnan(number))
			return Summand::kNaN;
		if (std::isinf(number))
			return number > 0 ? Summand::kPositive : Summand::kNegative;
		return Summand::kFinite;
	}

	Numeric number = DatumGetNumeric(value);
	if (numeric_is_nan(number))
		return Summand::kNaN;
	if (numeric_is_inf(number))
	{
		Datum zero = NumericGetDatum(int64_to_numeric(0));
		bool positive = DatumGetBool(DirectFunctionCall2(numeric_gt, value, zero));

		return positive ? Summand::kPositive : Summand::kNegative;
	}
	return Summand::kFinite;
}

/* Numbers below 10^252 have a short header, as most have; see utils/adt/numeric.c. */
static bool
has_short_header(Datum number)
{
	constexpr uint16 kFormat = 0xC000;
	constexpr uint16 kShort = 0x8000;
	uint16 header;

	memcpy(&header, VARDATA_ANY(DatumGetPointer(number)), sizeof(header));
	return (header & kFormat) == kShort;
}

/*
 * A numeric has 131072 digits before its point at most.  A sum of numbers of 20
 * fewer is one, however many rows there are, so what passes here can be added,
 * folded and taken away again in whatever steps.
 */
static int64
summable(Datum number, const char *limit)
{
	if (has_short_header(number))
		return (int64) number;

	Datum most = DirectFunctionCall3(numeric_in, CStringGetDatum(limit),
	                                 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	if (DatumGetBool(
	        DirectFunctionCall2(numeric_gt, DirectFunctionCall1(numeric_abs, number), most)))
		ereport(ERROR, (errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
		                errmsg("number is too large to be added up by a statistic"),
		                errdetail("Sums take numbers up to 1e131051, variances up to 1e65525.")));
	return (int64) number;
}

int64
exact_numeric(bool is_float, Datum value)
{
	return is_float ? exact_double(DatumGetFloat8(value))
	                : summable(PointerGetDatum(PG_DETOAST_DATUM_COPY(value)), "1e131051");
}

int64
square_of(int64 number)
{
	(void) summable((Datum) number, "1e65525");
	return (int64) DirectFunctionCall2(numeric_mul, (Datum) number, (Datum) number);
}

/* A value of any type that can be summed, as double precision or numeric. */
static Datum
as_summand(Oid type, Datum value, bool *is_float)
{
	*is_float = type == FLOAT4OID || type == FLOAT8OID;
	switch (type)
	{
	case INT2OID:
		return NumericGetDatum(int64_to_numeric(DatumGetInt16(value)));
	case INT4OID:
		return NumericGetDatum(int64_to_numeric(DatumGetInt32(value)));
	case INT8OID:
		return NumericGetDatum(int64_to_numeric(DatumGetInt64(value)));
	case FLOAT4OID:
		return Float8GetDatum(DatumGetFloat4(value));
	default:
		return value;
	}
}

int64
share_of_value(CellRole role, Oid type, Datum value, int sign)
{
	bool is_float;

	if (role == CellRole::kNonNull)
		return sign;

	Datum number = as_summand(type, value, &is_float);
	Summand kind = classify(is_float, number);
	switch (role)
	{
	case CellRole::kNaN:
		return kind == Summand::kNaN ? sign : 0;
	case CellRole::kPositive:
		return kind == Summand::kPositive ? sign : 0;
	case CellRole::kNegative:
		return kind == Summand::kNegative ? sign : 0;
	default:
		break;
	}
	if (kind != Summand::kFinite)
		return 0;

	int64 share = exact_numeric(is_float, number);
	if (role == CellRole::kSquares)
		share = square_of(share);
	return sign > 0 ? share : negate_sum(share);
}

} /* namespace cache_ext::statistics */
