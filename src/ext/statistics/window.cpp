/*-------------------------------------------------------------------------
 *
 * window.cpp
 *		What a window relative to now() holds; see window.hpp.
 *
 * A bucket is inside when all conditions hold at its first and at its last
 * moment, and outside when one holds at neither; conditions are comparisons, so
 * what holds at both ends holds between them.  Every other bucket is cut by an
 * end of the window, and its rows are asked one by one.
 *
 * Comparing a local time with an instant is not a comparison of local times
 * where clocks change.  Near such a change the ends are moved apart by more
 * than any clock has ever been set forward or back.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/feed.hpp"
#include "ext/statistics/fold.hpp"
#include "ext/statistics/store.hpp"
#include "ext/statistics/window.hpp"
#include "pg/memory.hpp"

extern "C" {
#include "access/table.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "optimizer/optimizer.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
}

namespace cache_ext::statistics {

constexpr int64 kClockChange = 26 * USECS_PER_HOUR;

enum class Position
{
	kInside,
	kCut,
	kBefore,
	kAfter
};

struct Condition
{
	ExprState *holds;
	bool is_lower;
};

struct WindowReading
{
	Pending *pending;
	Definition *definition;
	const Block *block;
	const Window *window;
	Snapshot snapshot;
	ExprContext *econtext;
	TupleTableSlot *moment;
	int condition_count;
	Condition *conditions;
	Datum last_bucket; /* the one asked about last */
	Position last_position;
	bool has_last;
	int cut_count;
	Datum *cut;
};

/* ---- where a bucket lies ---- */

static bool
holds(WindowReading *w, const Condition &condition, Datum moment)
{
	bool null;

	ExecClearTuple(w->moment);
	w->moment->tts_values[0] = moment;
	w->moment->tts_isnull[0] = false;
	ExecStoreVirtualTuple(w->moment);
	w->econtext->ecxt_scantuple = w->moment;
	Datum value = ExecEvalExprSwitchContext(condition.holds, w->econtext, &null);
	ResetExprContext(w->econtext);
	return !null && DatumGetBool(value);
}

/* How far the session's clock is from UTC at a local time. */
static int64
clock_offset(Timestamp local)
{
	return DatumGetTimestampTz(
	           DirectFunctionCall1(timestamp_timestamptz, TimestampGetDatum(local))) -
	       local;
}

static Position
find_position(WindowReading *w, Datum bucket)
{
	Datum first = bucket;
	Datum last = bucket;
	bool inside = true;

	if (w->window->width > 0 && !TIMESTAMP_NOT_FINITE(DatumGetTimestamp(bucket)))
	{
		Timestamp start = DatumGetTimestamp(bucket);
		Timestamp end = start + w->window->width - 1;

		if (w->window->by_zone &&
		    clock_offset(start - kClockChange) != clock_offset(end + kClockChange))
		{
			start -= kClockChange;
			end += kClockChange;
		}
		first = TimestampGetDatum(start);
		last = TimestampGetDatum(end);
	}
	for (int i = 0; i < w->condition_count; ++i)
	{
		bool at_first = holds(w, w->conditions[i], first);
		bool at_last = holds(w, w->conditions[i], last);

		if (!at_first && !at_last)
			return w->conditions[i].is_lower ? Position::kBefore : Position::kAfter;
		inside = inside && at_first && at_last;
	}
	return inside ? Position::kInside : Position::kCut;
}

static void
note_cut(WindowReading *w, Datum bucket)
{
	for (int i = 0; i < w->cut_count; ++i)
		if (w->cut[i] == bucket)
			return;
	*append(w->cut, w->cut_count) = bucket;
}

static Position
position_of(WindowReading *w, Datum bucket)
{
	if (!w->has_last || w->last_bucket != bucket)
	{
		w->last_position = find_position(w, bucket);
		w->last_bucket = bucket;
		w->has_last = true;
		if (w->last_position == Position::kCut)
			note_cut(w, bucket);
	}
	return w->last_position;
}

/* ---- adding up ---- */

/* The totals of the group behind a bucket, to which cells of the block are added. */
static int64 *
group_totals(WindowReading *w, const Datum *key, const bool *nulls)
{
	return key_cells(w->pending->totals, key + 1, nulls + 1, true) + w->block->first_cell;
}

static void
add_folded(WindowReading *w)
{
	const Part &part = w->definition->parts[w->window->part];
	Store *store = open_part(w->definition, w->window->part, AccessShareLock);

	begin_walk(store, w->snapshot, nullptr, nullptr, 0);
	while (TupleTableSlot *row = next_row(store, BackwardScanDirection))
	{
		CHECK_FOR_INTERRUPTS();
		Position position = position_of(w, row->tts_values[0]);

		if (position == Position::kBefore)
			break;
		if (position != Position::kInside)
			continue;

		int64 *totals = group_totals(w, row->tts_values, row->tts_isnull);
		for (int i = 0; i < part.cell_count; ++i)
			add_to_cell(w->pending->context, part.cell_is_sum[i], &totals[i],
			            (int64) row->tts_values[part.key_count + i]);
	}
	close_store(store);
}

/* Entries of pending rows, or of the rows of cut buckets. */
static void
add_entries(WindowReading *w, KeyTable *entries, bool inside_only)
{
	const Part &part = w->definition->parts[w->window->part];

	for_each_key(entries, [&](const Datum *key, const bool *nulls, const int64 *cells) {
		CHECK_FOR_INTERRUPTS();
		if (inside_only && position_of(w, key[0]) != Position::kInside)
			return;
		int64 *totals = group_totals(w, key, nulls);
		for (int i = 0; i < part.cell_count; ++i)
			add_to_cell(w->pending->context, part.cell_is_sum[i], &totals[i], cells[i]);
	});
}

/* ---- rows of cut buckets ---- */

/* A btree of the table on the column, usable by the snapshot; nullptr when it is gone. */
static Relation
open_moment_index(Relation table, AttrNumber column)
{
	ListCell *cell;

	foreach (cell, RelationGetIndexList(table))
	{
		Relation index = index_open(lfirst_oid(cell), AccessShareLock);

		if (index->rd_rel->relam == BTREE_AM_OID && index->rd_index->indisvalid &&
		    index->rd_index->indkey.values[0] == column && !index->rd_index->indcheckxmin &&
		    RelationGetIndexPredicate(index) == NIL)
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
	for (int i = 0; i < feed->reading->condition_count; ++i)
		if (!holds(feed->reading, feed->reading->conditions[i], moment))
			return;
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
	Relation root = table_open(w->block->source, AccessShareLock);
	Form_pg_attribute column = TupleDescAttr(RelationGetDescr(root), w->window->column - 1);
	RowFeed feed = {w,         compile_block(table, w->block->source, w->definition, w->block),
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

static void
add_cut_buckets(WindowReading *w)
{
	Delta *delta = pg::make_in<Delta>(CurrentMemoryContext);
	Pending *rows = make_pending(w->definition, w->pending->context);
	ListCell *cell;

	foreach (cell, find_all_inheritors(w->block->source, AccessShareLock, nullptr))
		if (get_rel_relkind(lfirst_oid(cell)) != RELKIND_PARTITIONED_TABLE)
			feed_cut_buckets(w, lfirst_oid(cell), delta);
	add_delta(rows, delta);
	add_entries(w, rows->parts[w->window->part], false);
}

/* ---- all of it ---- */

static void
begin_window(WindowReading *w)
{
	TupleDesc desc = CreateTemplateTupleDesc(1);
	ListCell *cell;

	TupleDescInitEntry(desc, 1, "moment", w->window->type, -1, 0);
	w->moment = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	w->econtext = CreateStandaloneExprContext();
	w->conditions =
	    static_cast<Condition *>(palloc0(sizeof(Condition) * list_length(w->window->conditions)));
	foreach (cell, w->window->conditions)
	{
		auto *condition = static_cast<WindowCondition *>(lfirst(cell));

		w->conditions[w->condition_count++] = {
		    ExecInitExpr(expression_planner((Expr *) copyObjectImpl(condition->op)), nullptr),
		    condition->is_lower};
	}
}

void
read_windows(Pending *pending, Snapshot snapshot)
{
	Definition *d = pending->definition;

	for (int i = 0; i < d->block_count; ++i)
	{
		WindowReading reading = {};

		if (d->blocks[i].window == nullptr)
			continue;
		reading.pending = pending;
		reading.definition = d;
		reading.block = &d->blocks[i];
		reading.window = d->blocks[i].window;
		reading.snapshot = snapshot;
		begin_window(&reading);
		add_folded(&reading);
		add_entries(&reading, pending->parts[reading.window->part], true);
		if (reading.cut_count > 0)
			add_cut_buckets(&reading);
		FreeExprContext(reading.econtext, true);
		ExecDropSingleTupleTableSlot(reading.moment);
	}
}

} /* namespace cache_ext::statistics */
