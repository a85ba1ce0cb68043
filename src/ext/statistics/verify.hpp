/*-------------------------------------------------------------------------
 *
 * verify.hpp
 *		Comparing statistics with a recomputation in the same snapshot.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/definition.hpp"

namespace cache_ext::statistics {

/* What the last verification in the background found. */
struct Verdict
{
	TimestampTz at; /* DT_NOBEGIN: there was none */
	bool ok;
};
Verdict verdict_on(int32 statistic);
void remember_verdict(int32 statistic, bool ok);

/* What was found no longer says anything: it is looked at anew. */
void forget_verdict(int32 statistic);

/* Filled statistics whose last verification is too long ago, the one that waits longest first. */
List *unverified_statistics(); /* of StatisticRow * */

/* Verify one and remember the result. */
void verify_in_background(const StatisticRow &row);

/* Of inspect.cpp: who may look, and the definition of a statistic that must exist. */
void require_select(Oid relation);
Definition *existing_definition(const StatisticRow &row);

} /* namespace cache_ext::statistics */
