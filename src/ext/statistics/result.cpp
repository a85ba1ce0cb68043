/*-------------------------------------------------------------------------
 *
 * result.cpp
 *		Final values of aggregates; see result.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include <cmath>

#include "ext/statistics/log.hpp"
#include "ext/statistics/result.hpp"

extern "C" {
#include "catalog/pg_type.h"
#include "utils/float.h"
#include "utils/numeric.h"
}

namespace cache_ext::statistics {

static Datum
sum_as_numeric(int64 sum)
{
	return sum == 0 ? NumericGetDatum(int64_to_numeric(0)) : (Datum) sum;
}

/* NaN wins; infinities of both signs make NaN; one of them wins over every finite sum. */
static bool
special_value(const Aggregate &a, const int64 *cells, double *value)
{
	if (!a.has_specials)
		return false;

	int64 nans = cells[a.nan_cell];
	int64 positive = cells[a.nan_cell + 1];
	int64 negative = cells[a.nan_cell + 2];

	if (nans > 0 || (positive > 0 && negative > 0))
		*value = get_float8_nan();
	else if (positive > 0)
		*value = get_float8_infinity();
	else if (negative > 0)
		*value = -get_float8_infinity();
	else
		return false;
	return true;
}

static Datum
float_result(double value, Oid type)
{
	if (type == FLOAT4OID)
		return Float4GetDatum((float4) value);
	return Float8GetDatum(value);
}

/*
 * Exact quotient, to more digits than any tie between two doubles has, so that
 * the one rounding at the end is the correct one.  A tie that is the sum over a
 * divisor of at most 2^126 has at most 126 binary places more than the sum.
 * Taking the root shrinks the distance to a tie by at most 10^309.
 */
static Datum
exact_quotient(Datum sum, Datum divisor, bool for_root = false)
{
	constexpr int kMorePlaces = 150;
	constexpr int kMoreForRoot = 320;
	int scale = DatumGetInt32(DirectFunctionCall1(numeric_scale, sum)) + kMorePlaces +
	            (for_root ? kMoreForRoot : 0);
	Datum scaled = DirectFunctionCall2(numeric_round, sum, Int32GetDatum(scale));

	return DirectFunctionCall2(numeric_div, scaled, divisor);
}

static Datum
numeric_as_float(Datum value, Oid type)
{
	constexpr double kBeyondReal = 3.41e38; /* the cast to real would say it in other words */
	Datum result = DirectFunctionCall1(numeric_float8_no_overflow, value);
	double number = std::fabs(DatumGetFloat8(result));

	if (std::isinf(number) || (type == FLOAT4OID && number > kBeyondReal))
		float_overflow_error();
	return type == FLOAT4OID ? DirectFunctionCall1(numeric_float4, value) : result;
}

static Datum
numeric_special(double value)
{
	return DirectFunctionCall1(float8_numeric, Float8GetDatum(value));
}

static Datum
as_numeric(int64 number)
{
	return NumericGetDatum(int64_to_numeric(number));
}

/* The finite sum as the plain aggregate has it: removed values leave no decimal places behind. */
static Datum
finite_sum(const Aggregate &a, const int64 *cells, int scale)
{
	Datum sum = sum_as_numeric(cells[a.sum_cell]);

	return a.is_float ? sum : DirectFunctionCall2(numeric_round, sum, Int32GetDatum(scale));
}

static Datum
sum_value(const Aggregate &a, const int64 *cells, int scale)
{
	double special;

	if (special_value(a, cells, &special))
		return a.is_float ? float_result(special, a.type) : numeric_special(special);

	Datum sum = finite_sum(a, cells, scale);
	if (a.is_float)
		return numeric_as_float(sum, a.type);
	if (a.type == INT8OID)
		return DirectFunctionCall1(numeric_int8, sum);
	return sum;
}

static Datum
average_value(const Aggregate &a, const int64 *cells, int scale)
{
	double special;

	if (special_value(a, cells, &special))
		return a.is_float ? float_result(special, a.type) : numeric_special(special);

	Datum sum = finite_sum(a, cells, scale);
	Datum count = as_numeric(cells[a.count_cell]);
	if (a.is_float)
		return numeric_as_float(exact_quotient(sum, count), a.type);
	return DirectFunctionCall2(numeric_div, sum, count);
}

/*
 * The square root with as many decimal places as the variance has, rounded
 * once: the places beyond them tell on which side of a tie it is.
 */
static Datum
square_root(Datum variance)
{
	constexpr int kMorePlaces = 100;
	int scale = DatumGetInt32(DirectFunctionCall1(numeric_scale, variance));
	Datum scaled =
	    DirectFunctionCall2(numeric_round, variance, Int32GetDatum(2 * scale + kMorePlaces));

	return DirectFunctionCall2(numeric_round, DirectFunctionCall1(numeric_sqrt, scaled),
	                           Int32GetDatum(scale));
}

/*
 * From the exact sums of the values and of their squares, so nothing cancels.
 * The steps, and with them the digits of a numeric result, are those of the
 * plain aggregate.
 */
static Datum
variance_value(const Aggregate &a, const int64 *cells, int scale)
{
	double special;

	if (special_value(a, cells, &special))
		return a.is_float ? float_result(get_float8_nan(), a.type)
		                  : numeric_special(get_float8_nan());

	Datum count = as_numeric(cells[a.count_cell]);
	Datum sum = finite_sum(a, cells, scale);
	Datum squares = sum_as_numeric(cells[a.squares_cell]);
	if (!a.is_float)
		squares = DirectFunctionCall2(numeric_round, squares, Int32GetDatum(2 * scale));

	Datum numerator =
	    DirectFunctionCall2(numeric_sub, DirectFunctionCall2(numeric_mul, count, squares),
	                        DirectFunctionCall2(numeric_mul, sum, sum));
	if (sum_is_zero((int64) numerator))
		return a.is_float ? float_result(0, a.type) : as_numeric(0);

	Datum others = as_numeric(cells[a.count_cell] - (a.is_sample ? 1 : 0));
	Datum divisor = DirectFunctionCall2(numeric_mul, count, others);
	Datum result = a.is_float ? exact_quotient(numerator, divisor, a.is_square_root)
	                          : DirectFunctionCall2(numeric_div, numerator, divisor);
	if (a.is_square_root)
		result = a.is_float ? DirectFunctionCall1(numeric_sqrt, result) : square_root(result);
	return a.is_float ? numeric_as_float(result, a.type) : result;
}

Datum
spell_group(Oid type, Datum group, Datum spelling)
{
	return type == NUMERICOID ? DirectFunctionCall2(numeric_round, group, spelling) : spelling;
}

Datum
aggregate_value(const Aggregate &a, const int64 *cells, const Datum *derived,
                const bool *derived_null, bool *null)
{
	*null = false;
	switch (a.kind)
	{
	case AggregateKind::kCount:
		return Int64GetDatum(cells[a.count_cell]);
	case AggregateKind::kMinimum:
	case AggregateKind::kMaximum:
		*null = derived_null[a.derived];
		return derived[a.derived];
	default:
		break;
	}

	int64 needed = a.kind == AggregateKind::kVariance && a.is_sample ? 2 : 1;
	*null = cells[a.count_cell] < needed;
	if (*null)
		return (Datum) 0;

	int scale = a.scale_derived < 0 || derived_null[a.scale_derived]
	                ? a.scale
	                : DatumGetInt32(derived[a.scale_derived]);
	switch (a.kind)
	{
	case AggregateKind::kSum:
		return sum_value(a, cells, scale);
	case AggregateKind::kAverage:
		return average_value(a, cells, scale);
	case AggregateKind::kVariance:
		return variance_value(a, cells, scale);
	case AggregateKind::kEvery:
		return BoolGetDatum(cells[a.deciding_cell] == 0);
	case AggregateKind::kSome:
		return BoolGetDatum(cells[a.deciding_cell] > 0);
	default:
		elog(ERROR, "unexpected kind of aggregate: %d", (int) a.kind);
	}
	pg_unreachable();
}

} /* namespace cache_ext::statistics */
