/*-------------------------------------------------------------------------
 *
 * window_rows.cpp
 *		The rows at the ends of a window, read from the table; see window.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/feed.hpp"
#include "ext/statistics/sides.hpp"
#include "ext/statistics/source_index.hpp"
#include "ext/statistics/window_reading.hpp"
#include "pg/memory.hpp"

extern "C" {
#include "access/table.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
}

namespace cache_ext::statistics {

/* A btree of the table on the column, usable by the snapshot; nullptr when it is gone. */
static Relation
open_moment_index(Relation table, AttrNumber column)
{
	ListCell *cell;

	foreach (cell, RelationGetIndexList(table))
	{
		Relation index = index_open(lfirst_oid(cell), AccessShareLock);

		if (index->rd_rel->relam == BTREE_AM_OID && index->rd_index->indisvalid &&
		    index->rd_index->indkey.values[0] == column &&
		    RelationGetIndexPredicate(index) == NIL && serves_all_snapshots(index->rd_indextuple))
			return index;
		index_close(index, AccessShareLock);
	}
	return nullptr;
}

struct RowFeed
{
	WindowReading *reading;
	Capture *capture;
	Delta *delta;
	AttrNumber column;
	Datum first;
	Datum last;
};

static void
feed_if_inside(RowFeed *feed, TupleTableSlot *row)
{
	bool null;
	Datum moment = slot_getattr(row, feed->column, &null);

	if (null || DatumGetTimestamp(moment) < DatumGetTimestamp(feed->first) ||
	    DatumGetTimestamp(moment) > DatumGetTimestamp(feed->last))
		return;
	if (is_inside(feed->reading, moment))
		feed_row(feed->capture, feed->delta, row, 1);
}

static void
feed_by_index(RowFeed *feed, Relation table, Relation index, Snapshot snapshot)
{
	bool zoned = feed->reading->window->type == TIMESTAMPTZOID;
	TupleTableSlot *row = table_slot_create(table, nullptr);
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], 1, BTGreaterEqualStrategyNumber,
	            zoned ? F_TIMESTAMPTZ_GE : F_TIMESTAMP_GE, feed->first);
	ScanKeyInit(&keys[1], 1, BTLessEqualStrategyNumber, zoned ? F_TIMESTAMPTZ_LE : F_TIMESTAMP_LE,
	            feed->last);
#if PG_VERSION_NUM >= 180000
	IndexScanDesc scan = index_beginscan(table, index, snapshot, nullptr, 2, 0);
#else
	IndexScanDesc scan = index_beginscan(table, index, snapshot, 2, 0);
#endif
	index_rescan(scan, keys, 2, nullptr, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, row))
	{
		CHECK_FOR_INTERRUPTS();
		feed_if_inside(feed, row);
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(row);
}

static void
feed_by_scan(RowFeed *feed, Relation table, Snapshot snapshot)
{
	TupleTableSlot *row = table_slot_create(table, nullptr);
	TableScanDesc scan = table_beginscan(table, snapshot, 0, nullptr);

	while (table_scan_getnextslot(scan, ForwardScanDirection, row))
	{
		CHECK_FOR_INTERRUPTS();
		feed_if_inside(feed, row);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(row);
}

static void
feed_cut_buckets(WindowReading *w, Oid member, Delta *delta)
{
	Relation table = table_open(member, AccessShareLock);
	Oid source = window_source(*w->block, w->window);
	Relation root = table_open(source, AccessShareLock);
	Form_pg_attribute column = TupleDescAttr(RelationGetDescr(root), w->window->column - 1);
	RowFeed feed = {w,         compile_window(table, source, w->definition, w->block),
	                delta,     get_attnum(member, NameStr(column->attname)),
	                (Datum) 0, (Datum) 0};
	Relation index = open_moment_index(table, feed.column);

	for (int i = 0; i < w->cut_count; ++i)
	{
		feed.first = w->cut[i];
		feed.last = TimestampGetDatum(DatumGetTimestamp(w->cut[i]) + w->window->width - 1);
		if (index != nullptr)
			feed_by_index(&feed, table, index, w->snapshot);
		else
			feed_by_scan(&feed, table, w->snapshot);
	}
	if (index != nullptr)
		index_close(index, NoLock);
	table_close(root, NoLock);
	table_close(table, NoLock);
}

Pending *
rows_of_cut_buckets(WindowReading *w)
{
	Delta *delta = pg::make_in<Delta>(CurrentMemoryContext);
	Pending *rows = make_pending(w->definition, w->pending->context);
	ListCell *cell;

	foreach (cell,
	         find_all_inheritors(window_source(*w->block, w->window), AccessShareLock, nullptr))
		if (get_rel_relkind(lfirst_oid(cell)) != RELKIND_PARTITIONED_TABLE)
			feed_cut_buckets(w, lfirst_oid(cell), delta);
	add_delta(rows, delta);
	if (w->block->side_count > 0)
		combine_rows(w->pending, rows, *w->block, w->window->side, w->snapshot);
	return rows;
}

} /* namespace cache_ext::statistics */
