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
 */
void apply(Pending *pending);

/* Does a join key count, given the rows of the other side? */
bool exists_counts(const Block &block, int64 matches);

/* The total of a cell after a join key went from one state (cells, then matches) to another. */
int64 exists_change(const Block &block, const Part &part, int cell, const int64 *before,
                    const int64 *after, int64 total);

/* What pending values do to one of a group's extremes. */
struct Extreme
{
	bool has_candidate; /* a pending value that has rows */
	Datum candidate;
	bool removed; /* a value of the table has lost its last row */
};

/*
 * Notes the change of a value from so many rows to so many; the value must
 * live as long as the note, which is made in the context at first.
 */
void note_value(Extreme **note, AggregateKind kind, Store *store, Datum value, int64 before,
                int64 after, MemoryContext context);

/* A value that gets its first rows, or loses its last ones, changes a total over distinct values.
 */
void note_presence(const Derived &derived, int64 *total, Oid type, Datum value, int64 before,
                   int64 after, MemoryContext context);

/* Is the candidate further out?  The value is the last key column of the store. */
bool is_better(AggregateKind kind, Store *store, Datum candidate, Datum than);

/* State cells as columns of a row, and back; a sum is copied into the current context. */
void store_cell(bool is_sum, int64 cell, Datum *value, bool *null);
int64 load_cell(bool is_sum, Datum value);

/* Raises 22003 when a count overflows. */
int64 add_cells(bool is_sum, int64 left, int64 right);

/* A sum that does not share memory with the states of a key: it outlives them. */
int64 own_sum(int64 sum);

/* Add the pending rows of a part to its table. */
void add_to_part(Pending *pending, int part, Snapshot snapshot);

/* Fold the logs of these sources (List of SourceRow *); returns partial rows folded. */
int64 fold_sources(List *sources);

} /* namespace cache_ext::statistics */
