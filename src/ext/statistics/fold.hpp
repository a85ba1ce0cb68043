/*-------------------------------------------------------------------------
 *
 * fold.hpp
 *		Adding pending partial rows to the totals and parts of a statistic.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/pending.hpp"

namespace cache_ext::statistics {

/*
 * Add the sums to the statistic's tables, in the current transaction.  The
 * caller holds the maintenance lock for folding, or is creating the statistic.
 */
void apply(Pending *pending);

/* Does a join key count, given the rows of the other side? */
bool exists_counts(const Block &block, int64 matches);

/* The total of a cell after a join key went from one state (cells, then matches) to another. */
int64 exists_change(const Block &block, const Part &part, int cell, const int64 *before,
                    const int64 *after, int64 total);

/* State cells as columns of a row, and back; a sum is copied into the current context. */
void store_cell(bool is_sum, int64 cell, Datum *value, bool *null);
int64 load_cell(bool is_sum, Datum value);

/* Raises 22003 when a count overflows. */
int64 add_cells(bool is_sum, int64 left, int64 right);

/* Fold the logs of these sources (List of SourceRow *); returns partial rows folded. */
int64 fold_sources(List *sources);

} /* namespace cache_ext::statistics */
