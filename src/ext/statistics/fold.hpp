/*-------------------------------------------------------------------------
 *
 * fold.hpp
 *		Adding pending partial rows to the totals and parts of a statistic.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/pending.hpp"
#include "ext/statistics/store.hpp"

namespace cache_ext::statistics {

/*
 * Add the sums to the statistic's tables, in the current transaction.  The
 * caller holds the maintenance lock for folding, or is creating the statistic.
 * `complete` is the snapshot of which nothing remains pending, if there is one.
 */
void apply(Pending *pending, Snapshot complete);

/* Whose sums are being added up or applied, or were when an error came in between; 0: nobody's. */
int32 folded_statistic();
void note_folded_statistic(int32 statistic);

/* Does a join key count, given the rows of the other side? */
bool exists_counts(const Block &block, int64 matches);

/* The total of a cell after a join key went from one state (cells, then matches) to another. */
int64 exists_change(const Block &block, const Part &part, int cell, const int64 *before,
                    const int64 *after, int64 total);

/*
 * A value of a part went from so many rows to so many: enters into the pending
 * totals of its group what becomes of distinct totals and extremes.
 */
void note_change(Pending *pending, int part, const Datum *key, const bool *nulls, int64 before,
                 int64 after);

/* The same for a part without a table, where only the sign of the change is known. */
void note_changes(Pending *pending, int part);

/* State cells as columns of a row, and back; a sum is copied into the current context. */
void store_cell(bool is_sum, int64 cell, Datum *value, bool *null);
int64 load_cell(bool is_sum, Datum value);

/* Raises 22003 when a count overflows. */
int64 add_cells(bool is_sum, int64 left, int64 right);

/* A sum that does not share memory with the states of a key: it outlives them. */
int64 own_sum(int64 sum);

/* Add the pending rows of a part to its table. */
void add_to_part(Pending *pending, int part, Snapshot snapshot);

/* Adds a term to a total that lives in the context; the term may not. */
void add_to_cell(MemoryContext context, bool is_sum, int64 *total, int64 term);

/*
 * Fold what a snapshot (without one, the newest) sees in the logs of these
 * sources (List of SourceRow *); returns partial rows folded.  Statistics that
 * are not filled get nothing.
 */
int64 fold_sources(List *sources, Snapshot snapshot = nullptr);

} /* namespace cache_ext::statistics */
