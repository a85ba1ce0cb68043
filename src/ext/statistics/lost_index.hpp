/*-------------------------------------------------------------------------
 *
 * lost_index.hpp
 *		What becomes of a statistic that reads an index of its source (extremes
 *		without a part, ends of windows) when the index goes.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/definition.hpp"

extern "C" {
#include "nodes/parsenodes.h"
#include "utils/snapshot.h"
}

namespace cache_ext::statistics {

/* What reads do for want of an index, as a detail for people; nullptr when none is missing. */
char *lost_index(const Definition *definition);

/* Those of these statistics (List of int) that miss an index for extremes are filled anew, with
 * parts. */
void unfill_without_index(List *statistics);

/*
 * DROP INDEX names indexes, and when they are gone nothing tells whose they
 * were.  (Commands that drop an index with something else than itself or its
 * constraint are not followed: the state says what is missing.)
 */
void note_index_drop(DropStmt *statement);
void unfill_after_index_drop();

/*
 * Gives a statistic that is about to be filled the parts that it needs for want
 * of an index; returns its definition as it is then.  The caller keeps folds away.
 */
Definition *add_missing_parts(Definition *definition);

/* May a part have been added after the totals that this snapshot sees? */
bool has_younger_part(const Definition *definition, Snapshot snapshot);

} /* namespace cache_ext::statistics */
