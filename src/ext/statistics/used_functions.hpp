/*-------------------------------------------------------------------------
 *
 * used_functions.hpp
 *		Functions that queries of statistics use, and what becomes of these when
 *		one is replaced.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/catalog.hpp"

namespace cache_ext::statistics {

/*
 * After CREATE OR REPLACE or ALTER FUNCTION: statistics whose queries use the
 * function are filled anew, since it may give other values for the same rows;
 * 0A000 when it is not immutable any more.  It is found where PostgreSQL records
 * that an expression, an operator or the SQL-standard body of a function needs it.
 */
void follow_function(Oid function);

/* Have every session compile anew what it evaluates for the statistic. */
void forget_compiled_statistic(int32 statistic);

} /* namespace cache_ext::statistics */
