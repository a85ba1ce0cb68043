/*-------------------------------------------------------------------------
 *
 * store.hpp
 *		A totals or part table: rows by key, with cells behind the key.
 *
 * The unique index on the key columns serves look-ups, and for parts with
 * values also the search for the outermost one.  Parts that are only asked for
 * whole keys have a hash index of the keys' hashes instead, which lie in a
 * column behind the cells: a key is found and entered at half the price.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/definition.hpp"

extern "C" {
#include "access/genam.h"
#include "access/relscan.h"
#include "access/skey.h"
#include "catalog/indexing.h"
#include "executor/tuptable.h"
}

namespace cache_ext::statistics {

struct NewRows;

struct Store
{
	MemoryContext context; /* of the scan and whatever else outlives a row */
	Relation table;
	Relation index;
	const KeyType *keys;
	int key_count;
	LOCKMODE lock;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	FmgrInfo *equality;
	CatalogIndexState indexes; /* opened at the first change */
	int newness;               /* how new keys have been of late */
	FmgrInfo *hashes;          /* of the key columns; nullptr: the index is a btree */
	NewRows *new_rows;         /* to be inserted together */
};

Store *open_totals(const Definition *definition, LOCKMODE lock);
Store *open_part(const Definition *definition, int part, LOCKMODE lock);
void close_store(Store *store);

/* A part whose rows are looked up by these key columns, for which it has an index. */
Store *open_part_by(const Definition *definition, int part, const int *columns, int count,
                    LOCKMODE lock);

/*
 * The row with this key (its first `count` columns; NULL equals NULL) that the
 * snapshot sees, as a slot that is valid until the next call; nullptr when
 * there is none.
 */
TupleTableSlot *find_row(Store *store, Snapshot snapshot, const Datum *values, const bool *nulls);

/* Walk rows whose leading keys are these, in index order or backwards. */
void begin_walk(Store *store, Snapshot snapshot, const Datum *values, const bool *nulls, int count);
TupleTableSlot *next_row(Store *store, ScanDirection direction);

/* Are two values of this key column the same? */
bool same_value(Store *store, int column, Datum left, Datum right);

/*
 * Changes, by the whole row, whose values lie in arrays of row_columns().
 * Nobody checks that a key that is inserted is not there yet.  Rows of a store
 * with hashes are inserted many at a time, the last ones by close_store(), so
 * they must not be looked for before.
 */
int row_columns(const Store *store, int keys_and_cells);
void insert_into(Store *store, Datum *values, bool *nulls);

/*
 * Inserts the row unless its key is there, by what the unique index says while
 * the entry is made: one descent instead of two where most keys are new.  A key
 * that is there costs a dead row, so look keys up while worth_trying() is false.
 */
bool try_insert(Store *store, Datum *values, bool *nulls);
bool worth_trying(const Store *store);
void update_in(Store *store, ItemPointer tid, Datum *values, bool *nulls);
void delete_from(Store *store, ItemPointer tid);

} /* namespace cache_ext::statistics */
