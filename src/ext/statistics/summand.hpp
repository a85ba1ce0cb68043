/*-------------------------------------------------------------------------
 *
 * summand.hpp
 *		Numbers on their way into exact sums: finite values as numeric, NaN and
 *		infinities apart.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/definition.hpp"

namespace cache_ext::statistics {

enum class Summand
{
	kFinite,
	kNaN,
	kPositive,
	kNegative
};

/* The value is a double precision or numeric one and not NULL. */
Summand classify(bool is_float, Datum value);

/* A finite value, or its square, as a numeric of its own in the current context. */
int64 exact_numeric(bool is_float, Datum value);
int64 square_of(int64 number);

/* What one value of a number's type adds to a total of this role: a count, or a numeric. */
int64 share_of_value(CellRole role, Oid type, Datum value, int sign);

} /* namespace cache_ext::statistics */
