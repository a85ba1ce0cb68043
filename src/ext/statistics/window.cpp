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
#include <algorithm>

#include "ext/statistics/fold.hpp"
#include "ext/statistics/window_reading.hpp"

extern "C" {
#include "access/tupdesc.h"
#include "optimizer/optimizer.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"
}

namespace cache_ext::statistics {

constexpr int64 kClockChange = 26 * USECS_PER_HOUR;

/* ---- where a bucket lies ---- */

static bool
holds(WindowReading *w, const ConditionState &condition, Datum moment)
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

bool
is_inside(WindowReading *w, Datum moment)
{
	for (int i = 0; i < w->condition_count; ++i)
		if (!holds(w, w->conditions[i], moment))
			return false;
	return true;
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

Position
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

/* ---- counts and sums ---- */

static const Part &
buckets_of(const WindowReading *w)
{
	return w->definition->parts[w->window->part];
}

/* Adds a row of the buckets to the totals of its group. */
static void
add_cells_of(WindowReading *w, const Datum *key, const bool *nulls, const int64 *cells)
{
	const Part &part = buckets_of(w);
	int64 *totals = key_cells(w->pending->totals, key + 1, nulls + 1, true) + w->block->first_cell;

	for (int i = 0; i < part.cell_count; ++i)
		add_to_cell(w->pending->context, part.cell_is_sum[i], &totals[i], cells[i]);
}

/* The groups behind a bucket. */
static bool
is_wanted(const WindowReading *w, const Datum *key, const bool *nulls)
{
	return is_wanted(w->filter, w->totals, key + 1, nulls + 1);
}

/* Calls visit(row) for each row of a part that is wanted and whose bucket is inside. */
template <typename Visit>
static void
for_each_inside(WindowReading *w, int number, Visit &&visit)
{
	Store *store = open_part(w->definition, number, AccessShareLock);

	begin_walk(store, w->snapshot, nullptr, nullptr, 0);
	while (TupleTableSlot *row = next_row(store, BackwardScanDirection))
	{
		CHECK_FOR_INTERRUPTS();
		Position position = position_of(w, row->tts_values[0]);

		if (position == Position::kBefore)
			break;
		if (position == Position::kInside && is_wanted(w, row->tts_values, row->tts_isnull))
			visit(row);
	}
	close_store(store);
}

/* Calls visit(key, nulls, cells) for each such entry that is pending. */
template <typename Visit>
static void
for_each_pending_inside(WindowReading *w, int number, Visit &&visit)
{
	for_each_key(w->pending->parts[number],
	             [&](const Datum *key, const bool *nulls, const int64 *cells) {
		             CHECK_FOR_INTERRUPTS();
		             if (position_of(w, key[0]) == Position::kInside && is_wanted(w, key, nulls))
			             visit(key, nulls, cells);
	             });
}

/* ---- values ---- */

/* Does every value with rows matter, or only the outermost ones of each group? */
static bool
needs_all_values(const Definition *d, int part)
{
	for (int i = 0; i < d->derived_count; ++i)
		if (d->derived[i].part == part && d->derived[i].kind == AggregateKind::kDistinct)
			return true;
	return false;
}

/* What is known of a part with values while its window is read. */
struct WindowValues
{
	WindowReading *reading;
	int part;
	Store *store;
	KeyTable *rows; /* by groups and value; nullptr: only the outermost ones matter */
};

static WindowValues
begin_values(WindowReading *w, int number)
{
	const Part &part = w->definition->parts[number];
	WindowValues values = {w, number, open_part(w->definition, number, AccessShareLock), nullptr};
	int keys = part.key_count - 1;

	if (!needs_all_values(w->definition, number))
		return values;
	MemoryContext caller = MemoryContextSwitchTo(w->pending->context);
	TupleDesc desc = CreateTemplateTupleDesc(keys);
	for (int i = 0; i < keys; ++i)
		TupleDescCopyEntry(desc, (AttrNumber) (i + 1), part.key_desc, (AttrNumber) (i + 2));
	values.rows = make_key_table(part.keys + 1, keys, desc, 1, w->pending->context);
	MemoryContextSwitchTo(caller);
	return values;
}

/* A value of a bucket inside that has rows; the key may be gone afterwards. */
static void
note_presence_of(WindowValues *values, const Datum *key, const bool *nulls)
{
	Pending *pending = values->reading->pending;
	const Part &part = pending->definition->parts[values->part];
	int last = part.key_count - 2;
	Datum own[INDEX_MAX_KEYS];

	std::copy_n(key + 1, last + 1, own);
	MemoryContext caller = MemoryContextSwitchTo(pending->context);
	own[last] = datumCopy(own[last], part.value_key().by_value, part.value_key().length);
	MemoryContextSwitchTo(caller);
	note_change(pending, values->part, own, nulls + 1, 0, 1);
}

static void
add_rows(WindowValues *values, const Datum *key, const bool *nulls, int64 rows)
{
	int64 *sum = key_cells(values->rows, key + 1, nulls + 1, true);

	*sum = add_cells(false, *sum, rows);
}

static int64
pending_rows(const WindowValues *values, const Datum *key, const bool *nulls)
{
	const int64 *change =
	    key_cells(values->reading->pending->parts[values->part], key, nulls, false);

	return change == nullptr ? 0 : *change;
}

static int64
rows_of(const WindowValues *values, const TupleTableSlot *row)
{
	int columns = values->reading->definition->parts[values->part].key_count;

	return DatumGetInt64(row->tts_values[columns]);
}

/* The outermost value of one bucket and group, of those that the part has. */
static void
note_outermost(WindowValues *values, AggregateKind kind, const Datum *key, const bool *nulls)
{
	Definition *d = values->reading->definition;

	begin_walk(values->store, values->reading->snapshot, key, nulls, 1 + d->group_count);
	while (TupleTableSlot *row =
	           next_row(values->store, kind == AggregateKind::kMaximum ? BackwardScanDirection
	                                                                   : ForwardScanDirection))
	{
		CHECK_FOR_INTERRUPTS();
		if (rows_of(values, row) + pending_rows(values, row->tts_values, row->tts_isnull) <= 0)
			continue;
		note_presence_of(values, row->tts_values, row->tts_isnull);
		return;
	}
}

/* The groups of a bucket may be met twice, which changes no extreme. */
static void
note_extremes(WindowValues *values, const Datum *key, const bool *nulls)
{
	Definition *d = values->reading->definition;

	for (int i = 0; i < d->derived_count; ++i)
		if (d->derived[i].part == values->part)
			note_outermost(values, d->derived[i].kind, key, nulls);
}

/*
 * Of each bucket and group the outermost value that is folded, with what is
 * pending of it; and every pending value that has rows.
 */
static void
add_extremes(WindowValues *values)
{
	WindowReading *w = values->reading;

	for_each_inside(w, w->window->part, [&](TupleTableSlot *row) {
		note_extremes(values, row->tts_values, row->tts_isnull);
	});
	for_each_pending_inside(w, w->window->part,
	                        [&](const Datum *key, const bool *nulls, const int64 *) {
		                        note_extremes(values, key, nulls);
	                        });
	for_each_pending_inside(
	    w, values->part, [&](const Datum *key, const bool *nulls, const int64 *change) {
		    if (*change <= 0)
			    return;
		    TupleTableSlot *row = find_row(values->store, w->snapshot, key, nulls);
		    if ((row == nullptr ? 0 : rows_of(values, row)) + *change > 0)
			    note_presence_of(values, key, nulls);
	    });
}

/* Rows by group and value, over all buckets inside. */
static void
add_all_values(WindowValues *values)
{
	WindowReading *w = values->reading;

	for_each_inside(w, values->part, [&](TupleTableSlot *row) {
		add_rows(values, row->tts_values, row->tts_isnull, rows_of(values, row));
	});
	for_each_pending_inside(w, values->part,
	                        [&](const Datum *key, const bool *nulls, const int64 *change) {
		                        add_rows(values, key, nulls, *change);
	                        });
}

/* Rows of cut buckets that are in the window; then all are known. */
static void
finish_values(WindowValues *values, Pending *rows)
{
	Pending *pending = values->reading->pending;

	if (rows != nullptr)
		for_each_key(rows->parts[values->part],
		             [&](const Datum *key, const bool *nulls, const int64 *count) {
			             if (!is_wanted(values->reading, key, nulls))
				             return;
			             if (values->rows != nullptr)
				             add_rows(values, key, nulls, *count);
			             else if (*count > 0)
				             note_presence_of(values, key, nulls);
		             });
	if (values->rows != nullptr)
		for_each_key(values->rows, [&](const Datum *key, const bool *nulls, const int64 *count) {
			CHECK_FOR_INTERRUPTS();
			note_change(pending, values->part, key, nulls, 0, *count);
		});
	close_store(values->store);
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
	w->conditions = static_cast<ConditionState *>(
	    palloc0(sizeof(ConditionState) * list_length(w->window->conditions)));
	foreach (cell, w->window->conditions)
	{
		auto *condition = static_cast<WindowCondition *>(lfirst(cell));

		w->conditions[w->condition_count++] = {
		    ExecInitExpr(expression_planner((Expr *) copyObjectImpl(condition->op)), nullptr),
		    condition->is_lower};
	}
}

/* Which buckets are cut is known when all of them have been met. */
static void
read_window(WindowReading *w)
{
	Definition *d = w->definition;
	int number = (int) (w->block - d->blocks);
	auto *values = static_cast<WindowValues *>(palloc0(sizeof(WindowValues) * d->part_count));
	int value_count = 0;

	for_each_inside(w, w->window->part, [&](TupleTableSlot *row) {
		add_cells_of(w, row->tts_values, row->tts_isnull,
		             (const int64 *) row->tts_values + buckets_of(w).key_count);
	});
	for_each_pending_inside(w, w->window->part,
	                        [&](const Datum *key, const bool *nulls, const int64 *cells) {
		                        add_cells_of(w, key, nulls, cells);
	                        });
	for (int i = 0; i < d->part_count; ++i)
	{
		if (d->parts[i].kind != PartKind::kBucketValues || d->parts[i].block != number)
			continue;
		values[value_count] = begin_values(w, i);
		if (values[value_count].rows != nullptr)
			add_all_values(&values[value_count]);
		else
			add_extremes(&values[value_count]);
		++value_count;
	}

	Pending *rows = w->cut_count == 0 ? nullptr : rows_of_cut_buckets(w);
	if (rows != nullptr)
		for_each_key(rows->parts[w->window->part],
		             [&](const Datum *key, const bool *nulls, const int64 *cells) {
			             if (is_wanted(w, key, nulls))
				             add_cells_of(w, key, nulls, cells);
		             });
	for (int i = 0; i < value_count; ++i)
		finish_values(&values[i], rows);
}

void
read_windows(Pending *pending, Snapshot snapshot, const GroupFilter *filter, Store *totals)
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
		reading.filter = filter;
		reading.totals = totals;
		begin_window(&reading);
		read_window(&reading);
		FreeExprContext(reading.econtext, true);
		ExecDropSingleTupleTableSlot(reading.moment);
	}
}

} /* namespace cache_ext::statistics */
