/*-------------------------------------------------------------------------
 *
 * feed.hpp
 *		What one row of a source adds to the statistics that read it.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "core/statistics/delta.hpp"
#include "ext/invalidation/watch.hpp"
#include "ext/statistics/definition.hpp"

extern "C" {
#include "access/tableam.h"
#include "executor/executor.h"
#include "lib/stringinfo.h"
}

namespace cache_ext::statistics {

struct Feed;

/* All that the triggers of one table do, compiled; see Lifetimes in src/README.md. */
struct Capture
{
	Oid relation; /* whose rows come; a partition has its own capture */
	Oid root;
	Oid log; /* InvalidOid when the root is no source */
	bool valid;
	MemoryContext context;
	Delta *delta; /* lent to the running statement */

	int statistic_count;
	int feed_count;
	Feed *feeds;
	int used_count; /* columns that feeds look at */
	AttrNumber *used;
	invalidation::RelationWatches *watches;

	ExprContext *econtext;
	TupleTableSlot *old_row;
	TupleTableSlot *new_row;
	StringInfoData key;
	StringInfoData row; /* of the log */
};

constexpr int32 kAllStatistics = 0;

/* In a context of its own, child of the current one; for one statistic alone it has no watches. */
Capture *compile_capture(Relation relation, Oid root, int32 statistic = kAllStatistics);

/* For the table of one block's window alone, without watches. */
Capture *compile_window(Relation relation, Oid root, const Definition *definition,
                        const Block *block);

/* The cached capture of a relation. */
Capture *capture_of(Relation relation);

/* Adds a row with a sign. */
void feed_row(Capture *capture, Delta *delta, TupleTableSlot *row, int sign);

/* A changed row: to the statistics, unless no used column changed, and to the watches. */
void feed_change(Capture *capture, Delta *delta, TupleTableSlot *old_row, TupleTableSlot *new_row);

/* All rows of a relation that the snapshot sees; after_row() runs after each. */
template <typename AfterRow>
void
feed_relation(Capture *capture, Relation relation, Delta *delta, Snapshot snapshot, int sign,
              AfterRow &&after_row)
{
	TupleTableSlot *slot = table_slot_create(relation, nullptr);
	TableScanDesc scan = table_beginscan(relation, snapshot, 0, nullptr);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		feed_row(capture, delta, slot, sign);
		after_row();
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
}

/* Do all changes cancel out? */
bool delta_is_zero(Delta *delta);

/* Append what all rows of a partition or truncated table count for, with a sign. */
void append_relation(Capture *capture, Relation relation, int sign);

} /* namespace cache_ext::statistics */
