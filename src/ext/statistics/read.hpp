/*-------------------------------------------------------------------------
 *
 * read.hpp
 *		The rows of a statistic in a snapshot.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/pending.hpp"
#include "ext/statistics/store.hpp"

extern "C" {
#include "utils/tuplestore.h"
}

namespace cache_ext::statistics {

/* Equality on the first `count` groups; count 0 reads every group. */
struct GroupFilter
{
	int count;
	Datum values[INDEX_MAX_KEYS];
	bool nulls[INDEX_MAX_KEYS]; /* a NULL matches the NULL group */
};

/* Does a group match?  The totals, opened, know how to compare. */
bool is_wanted(const GroupFilter *filter, Store *totals, const Datum *group, const bool *nulls);

/*
 * Put the result rows of the statistic, as the snapshot sees it, into the
 * store.  A snapshot older than the statistic's filling is answered by running
 * the query.
 */
void read_statistic(Definition *definition, Snapshot snapshot, const GroupFilter *filter,
                    Tuplestorestate *into, TupleDesc desc);

/* The rows of a defining view, with its owner's rights: for a statistic that is not filled. */
void run_query(Oid query, Snapshot snapshot, Tuplestorestate *into, TupleDesc desc);

/* Partial rows not yet folded, and the time of the newest visible change. */
void read_pending(Definition *definition, Snapshot snapshot, int64 *rows, TimestampTz *last_change);

} /* namespace cache_ext::statistics */
