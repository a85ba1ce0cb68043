/*-------------------------------------------------------------------------
 *
 * result.cpp
 *		Final values of aggregates; see result.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include <cmath>

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
 * count of at most 2^63 has at most 64 decimal places more than the sum.
 */
static Datum
exact_quotient(Datum sum, int64 count)
{
	constexpr int kMorePlaces = 150;
	int scale = DatumGetInt32(DirectFunctionCall1(numeric_scale, sum)) + kMorePlaces;
	Datum scaled = DirectFunctionCall2(numeric_round, sum, Int32GetDatum(scale));

	return DirectFunctionCall2(numeric_div, scaled, NumericGetDatum(int64_to_numeric(count)));
}

static Datum
numeric_as_float(Datum value, Oid type)
{
	if (type == FLOAT4OID)
		return DirectFunctionCall1(numeric_float4, value);

	Datum result = DirectFunctionCall1(numeric_float8_no_overflow, value);
	if (std::isinf(DatumGetFloat8(result)))
		float_overflow_error();
	return result;
}

static Datum
numeric_special(double value)
{
	return DirectFunctionCall1(float8_numeric, Float8GetDatum(value));
}

static Datum
sum_value(const Aggregate &a, const int64 *cells)
{
	double special;

	if (special_value(a, cells, &special))
		return a.is_float ? float_result(special, a.type) : numeric_special(special);

	Datum sum = sum_as_numeric(cells[a.sum_cell]);
	if (a.is_float)
		return numeric_as_float(sum, a.type);
	if (a.type == INT8OID)
		return DirectFunctionCall1(numeric_int8, sum);
	return sum;
}

static Datum
average_value(const Aggregate &a, const int64 *cells)
{
	double special;

	if (special_value(a, cells, &special))
		return a.is_float ? float_result(special, a.type) : numeric_special(special);

	Datum sum = sum_as_numeric(cells[a.sum_cell]);
	int64 count = cells[a.count_cell];
	if (a.is_float)
		return numeric_as_float(exact_quotient(sum, count), a.type);
	return DirectFunctionCall2(numeric_div, sum, NumericGetDatum(int64_to_numeric(count)));
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
	case AggregateKind::kSum:
	case AggregateKind::kAverage:
		*null = cells[a.count_cell] == 0;
		if (*null)
			return (Datum) 0;
		return a.kind == AggregateKind::kSum ? sum_value(a, cells) : average_value(a, cells);
	case AggregateKind::kMinimum:
	case AggregateKind::kMaximum:
	case AggregateKind::kCountDistinct:
		*null = derived_null[a.derived];
		return derived[a.derived];
	}
	pg_unreachable();
}

} /* namespace cache_ext::statistics */
