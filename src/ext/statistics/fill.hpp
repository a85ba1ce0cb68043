/*-------------------------------------------------------------------------
 *
 * fill.hpp
 *		Filling statistics from their tables, at once or by the worker.
 *
 * A statistic is filled while it has a row in cache_ext_internal.progress that
 * the reader's snapshot sees.  One that is not answers by running its query,
 * folds pass over what the log has for it, and the worker fills it as soon as
 * its triggers count every change.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/definition.hpp"
#include "ext/statistics/statistics.hpp"

extern "C" {
#include "storage/lockdefs.h"
}

namespace cache_ext::statistics {

/* In the newest snapshot. */
bool is_filled(int32 statistic);

/* Let a statistic answer from its tables until it is filled again; keeps folds away until the
 * transaction ends. */
void unfill(int32 statistic);

/* Tell the worker, at most about once a second, that some statistic waits to be filled. */
void wake_filling();

/* Adds all rows of the sources that the active snapshot sees to empty tables. */
void fill(Definition *definition);

/*
 * Replaces what the statistic's tables hold, by MVCC deletes and inserts, with
 * the rights of its owner.  The caller holds the maintenance lock for folding,
 * and every partial row that the active snapshot sees is folded.
 */
void fill_anew(Definition *definition);

/*
 * Relation locks that a filling needs: TRUNCATE must not come between.  When a
 * table was dropped just now, one returns false and the other raises.
 */
bool lock_existing_sources(List *relations, LOCKMODE mode);
void lock_sources(List *relations, LOCKMODE mode);

/* Why filling failed; NULL when it did not. */
char *filling_failure(int32 statistic);
void forget_failure(int32 statistic);

/* How much of the tables the worker has read for this statistic, 0 when it is not at it. */
float filling_progress(Oid relation);

} /* namespace cache_ext::statistics */
