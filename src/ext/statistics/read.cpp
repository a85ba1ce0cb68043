/*-------------------------------------------------------------------------
 *
 * read.cpp
 *		Reading a statistic: totals, parts and pending partial rows added up.
 *
 * Everything is read with one snapshot, the query's own, through the normal
 * access methods, so a result is as current as a recomputation in that
 * snapshot and takes part in serializable conflict detection.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/extreme.hpp"
#include "ext/statistics/fill.hpp"
#include "ext/statistics/fold.hpp"
#include "ext/statistics/lost_index.hpp"
#include "ext/statistics/read.hpp"
#include "ext/statistics/result.hpp"
#include "ext/statistics/sides.hpp"
#include "ext/statistics/source_index.hpp"
#include "ext/statistics/sources.hpp"
#include "ext/statistics/store.hpp"
#include "ext/statistics/window.hpp"
#include "pg/worker_table.hpp"

extern "C" {
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "executor/spi.h"
#include "optimizer/optimizer.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
}

namespace cache_ext::statistics {

constexpr int64 kRowsWorthTelling = 16; /* the worker, who may fold sooner */

struct Reading
{
	Definition *definition;
	Snapshot snapshot;
	const GroupFilter *filter;
	Pending *pending;
	Store *totals;
	Store **parts;
	SourceIndex **indexes; /* by part, opened when an extreme has to be looked for */
	bool lacks_index;
	MemoryContext scratch;

	ExprContext *econtext;
	TupleTableSlot *raw;
	ExprState *having;
	ExprState **outputs;
	Tuplestorestate *into;
	TupleDesc desc;
	TimestampTz last_change;
};

/* ---- pending values against the tables ---- */

bool
is_wanted(const GroupFilter *filter, Store *totals, const Datum *group, const bool *nulls)
{
	for (int i = 0; i < filter->count; ++i)
	{
		if (nulls[i] != filter->nulls[i])
			return false;
		if (!nulls[i] && !same_value(totals, i, group[i], filter->values[i]))
			return false;
	}
	return true;
}

static bool
wanted(const Reading *r, const Datum *group, const bool *nulls)
{
	return is_wanted(r->filter, r->totals, group, nulls);
}

static Store *
part_store(Reading *r, int number)
{
	if (r->parts[number] == nullptr)
		r->parts[number] = open_part(r->definition, number, AccessShareLock);
	return r->parts[number];
}

/* Pending values of a part change distinct counts and extremes of their groups. */
static void
resolve_values(Reading *r, int number)
{
	Definition *d = r->definition;
	KeyTable *values = r->pending->parts[number];

	if (values->entries == 0)
		return;
	Store *store = part_store(r, number);

	for_each_key(values, [&](const Datum *key, const bool *nulls, const int64 *change) {
		CHECK_FOR_INTERRUPTS();
		if (*change == 0 || !wanted(r, key, nulls))
			return;

		TupleTableSlot *row = find_row(store, r->snapshot, key, nulls);
		int64 before = row == nullptr ? 0 : DatumGetInt64(row->tts_values[d->group_count + 1]);

		note_change(r->pending, number, key, nulls, before, before + *change);
	});
}

/* Pending join keys: the totals take the difference that each key now makes. */
static void
resolve_exists(Reading *r, int number)
{
	Definition *d = r->definition;
	const Part &part = d->parts[number];
	const Block &block = d->blocks[part.block];
	KeyTable *keys = r->pending->parts[number];

	if (keys->entries == 0)
		return;
	Store *store = part_store(r, number);
	auto *before = static_cast<int64 *>(palloc(sizeof(int64) * part.cell_count));
	auto *after = static_cast<int64 *>(palloc(sizeof(int64) * part.cell_count));
	int64 *totals = key_cells(r->pending->totals, nullptr, nullptr, true);

	for_each_key(keys, [&](const Datum *key, const bool *nulls, const int64 *change) {
		CHECK_FOR_INTERRUPTS();
		TupleTableSlot *row = find_row(store, r->snapshot, key, nulls);

		for (int i = 0; i < part.cell_count; ++i)
		{
			before[i] = row == nullptr
			                ? 0
			                : load_cell(part.cell_is_sum[i], row->tts_values[part.key_count + i]);
			after[i] = add_cells(part.cell_is_sum[i], before[i], change[i]);
		}
		for (int i = 0; i < block.cell_count; ++i)
			totals[block.first_cell + i] =
			    exists_change(block, part, i, before, after, totals[block.first_cell + i]);
	});
}

/* The outermost value of the table that no pending change mentions. */
static bool
outermost_unmentioned(Reading *r, const Derived &derived, const Datum *group, const bool *nulls,
                      Datum *value)
{
	Definition *d = r->definition;
	Store *store = part_store(r, derived.part);
	ScanDirection direction =
	    derived.kind == AggregateKind::kMaximum ? BackwardScanDirection : ForwardScanDirection;

	begin_walk(store, r->snapshot, group, nulls, d->group_count);
	while (TupleTableSlot *row = next_row(store, direction))
	{
		CHECK_FOR_INTERRUPTS();
		if (DatumGetInt64(row->tts_values[d->group_count + 1]) <= 0)
			continue;

		/* Values that pending rows change are candidates already; +1 and -1 change nothing. */
		const int64 *change =
		    key_cells(r->pending->parts[derived.part], row->tts_values, row->tts_isnull, false);
		if (change != nullptr && *change != 0)
			continue;
		*value = datumCopy(row->tts_values[d->group_count], store->keys[d->group_count].by_value,
		                   store->keys[d->group_count].length);
		return true;
	}
	return false;
}

/* In the source's own index; without it the query answers in the end. */
static bool
outermost_by_index(Reading *r, const Derived &derived, const Datum *group, const bool *nulls,
                   Datum *value)
{
	const Part &part = r->definition->parts[derived.part];
	SourceIndex *&index = r->indexes[derived.part];

	if (index == nullptr && !r->lacks_index)
	{
		MemoryContext caller = MemoryContextSwitchTo(r->pending->context);
		Oid found = find_source_index(r->definition, part);

		if (OidIsValid(found))
			index = open_source_index(r->definition, part, found, r->snapshot);
		else
			r->lacks_index = true;
		MemoryContextSwitchTo(caller);
	}
	return index != nullptr && outermost_in_source(index, derived.kind, group, nulls, value);
}

static void
derive_extreme(Reading *r, const Derived &derived, const Extreme *change, const Datum *group,
               const bool *nulls, Datum *value, bool *null)
{
	const Part &part = r->definition->parts[derived.part];

	if (part.by_index)
	{
		if (*null || !move_extreme(derived.kind, part, change, value, null))
			*null = !outermost_by_index(r, derived, group, nulls, value);
		return;
	}
	if (move_extreme(derived.kind, part, change, value, null))
		return;
	*null = !outermost_unmentioned(r, derived, group, nulls, value);
	if (change->has_candidate &&
	    (*null || is_better(derived.kind, part, change->candidate, *value)))
	{
		*value = change->candidate;
		*null = false;
	}
}

/* ---- one result row ---- */

static void
emit(Reading *r)
{
	r->econtext->ecxt_scantuple = r->raw;
	if (r->having != nullptr && !ExecQual(r->having, r->econtext))
	{
		ResetExprContext(r->econtext);
		return;
	}

	int columns = r->desc->natts;
	auto *values = static_cast<Datum *>(palloc(sizeof(Datum) * columns));
	auto *nulls = static_cast<bool *>(palloc(sizeof(bool) * columns));

	for (int i = 0; i < columns; ++i)
		values[i] = ExecEvalExprSwitchContext(r->outputs[i], r->econtext, &nulls[i]);
	tuplestore_putvalues(r->into, r->desc, values, nulls);
	ResetExprContext(r->econtext);
}

/* row: the group's row of the totals table or nullptr; change: its pending cells or nullptr. */
static void
combine(Reading *r, const Datum *group, const bool *group_nulls, TupleTableSlot *row,
        const int64 *change)
{
	Definition *d = r->definition;
	MemoryContext caller = MemoryContextSwitchTo(r->scratch);
	int state_count = d->cell_count + d->derived_count;
	auto *state = static_cast<int64 *>(palloc0(sizeof(int64) * Max(state_count, 1)));
	auto *derived = static_cast<Datum *>(palloc(sizeof(Datum) * Max(d->derived_count, 1)));
	auto *derived_null = static_cast<bool *>(palloc(sizeof(bool) * Max(d->derived_count, 1)));

	for (int i = 0; i < d->cell_count; ++i)
	{
		bool is_sum = d->cell_is_sum[i];
		int64 folded = row == nullptr ? 0 : load_cell(is_sum, row->tts_values[d->totals_cell(i)]);

		state[i] = change == nullptr ? folded : add_cells(is_sum, folded, change[i]);
	}
	if (d->group_count == 0 || state[Definition::kGroupRows] > 0)
	{
		for (int i = 0; i < d->derived_count; ++i)
		{
			int column = d->totals_derived(i);

			derived[i] = row == nullptr ? (Datum) 0 : row->tts_values[column];
			derived_null[i] = row == nullptr || row->tts_isnull[column];
			if (d->derived[i].kind == AggregateKind::kDistinct)
			{
				bool is_sum = d->derived[i].is_sum();
				int64 folded = derived_null[i] ? 0 : load_cell(is_sum, derived[i]);

				state[d->cell_count + i] =
				    change == nullptr ? folded
				                      : add_cells(is_sum, folded, change[d->cell_count + i]);
			}
			else
				derive_extreme(r, d->derived[i],
				               change == nullptr
				                   ? nullptr
				                   : reinterpret_cast<const Extreme *>(change[d->cell_count + i]),
				               group, group_nulls, &derived[i], &derived_null[i]);
		}

		ExecClearTuple(r->raw);
		for (int i = 0; i < d->group_count; ++i)
		{
			int spelling = group_nulls[i] ? -1 : d->group_spelling[i];

			r->raw->tts_isnull[i] = group_nulls[i];
			r->raw->tts_values[i] =
			    spelling < 0 || derived_null[spelling]
			        ? group[i]
			        : spell_group(d->groups[i].type, group[i], derived[spelling]);
		}
		for (int i = 0; i < d->aggregate_count; ++i)
			r->raw->tts_values[d->group_count + i] = aggregate_value(
			    d->aggregates[i], d->aggregates[i].is_distinct ? state + d->cell_count : state,
			    derived, derived_null, &r->raw->tts_isnull[d->group_count + i]);
		int last = d->group_count + d->aggregate_count;
		r->raw->tts_values[last] = TimestampTzGetDatum(r->last_change);
		r->raw->tts_isnull[last] = r->last_change == DT_NOBEGIN;
		ExecStoreVirtualTuple(r->raw);
		emit(r);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextReset(r->scratch);
}

/* ---- all rows ---- */

static void
read_ungrouped(Reading *r)
{
	static bool no_nulls[1] = {false};
	static Datum no_values[1] = {0};

	combine(r, no_values, no_nulls, find_row(r->totals, r->snapshot, nullptr, nullptr),
	        r->pending->totals->single);
}

/* Marks a pending group as already joined with its row of the totals. */
static void
read_grouped(Reading *r)
{
	Definition *d = r->definition;
	KeyTable *pending = r->pending->totals;
	KeyTable *joined =
	    make_key_table(d->groups, d->group_count, d->group_desc, 1, r->pending->context);
	auto visit = [&](TupleTableSlot *row) {
		CHECK_FOR_INTERRUPTS();
		int64 *change = pending->entries == 0
		                    ? nullptr
		                    : key_cells(pending, row->tts_values, row->tts_isnull, false);

		if (change != nullptr)
			*key_cells(joined, row->tts_values, row->tts_isnull, true) = 1;
		combine(r, row->tts_values, row->tts_isnull, row, change);
	};

	if (r->filter->count > 0)
	{
		begin_walk(r->totals, r->snapshot, r->filter->values, r->filter->nulls, r->filter->count);
		while (TupleTableSlot *row = next_row(r->totals, ForwardScanDirection))
			visit(row);
	}
	else
	{
		TableScanDesc scan = table_beginscan(r->totals->table, r->snapshot, 0, nullptr);

		while (table_scan_getnextslot(scan, ForwardScanDirection, r->totals->slot))
		{
			slot_getallattrs(r->totals->slot);
			visit(r->totals->slot);
		}
		table_endscan(scan);
	}

	for_each_key(pending, [&](const Datum *group, const bool *nulls, const int64 *change) {
		CHECK_FOR_INTERRUPTS();
		if (key_cells(joined, group, nulls, false) == nullptr && wanted(r, group, nulls))
			combine(r, group, nulls, nullptr, change);
	});
}

static void
add_logs(Pending *pending, Snapshot snapshot)
{
	for (int i = 0; i < pending->definition->source_count; ++i)
		add_log(pending, pending->definition->logs[i], snapshot);
}

void
run_query(Oid query, Snapshot snapshot, Tuplestorestate *into, TupleDesc desc)
{
	wake_filling();
	PushActiveSnapshot(snapshot);
	PinnedSearchPath path; /* a reader's must not choose what the owner's functions call */
	SPI_connect();
	select_as(relation_owner(query), psprintf("SELECT * FROM %s", qualified_name(query)));
	for (uint64 i = 0; i < SPI_processed; ++i)
	{
		auto *values = static_cast<Datum *>(palloc(sizeof(Datum) * desc->natts));
		auto *nulls = static_cast<bool *>(palloc(sizeof(bool) * desc->natts));

		heap_deform_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, values, nulls);
		tuplestore_putvalues(into, desc, values, nulls);
	}
	SPI_finish();
	path.restore();
	PopActiveSnapshot();
}

static void
prepare_outputs(Reading *r)
{
	Definition *d = r->definition;

	r->econtext = CreateStandaloneExprContext();
	r->raw = MakeSingleTupleTableSlot(d->raw_desc, &TTSOpsVirtual);
	r->outputs = static_cast<ExprState **>(palloc(sizeof(ExprState *) * r->desc->natts));
	for (int i = 0; i < r->desc->natts; ++i)
		r->outputs[i] = ExecInitExpr(
		    expression_planner((Expr *) copyObjectImpl(list_nth(d->output, i))), nullptr);
	if (d->having != nullptr)
		r->having = ExecInitQual(list_make1(expression_planner((Expr *) copyObjectImpl(d->having))),
		                         nullptr);
}

void
read_statistic(Definition *definition, Snapshot snapshot, const GroupFilter *filter,
               Tuplestorestate *into, TupleDesc desc)
{
	ProgressRow progress = read_progress(definition->row.id, snapshot);

	if (!progress.visible || has_younger_part(definition, snapshot))
	{
		run_query(definition->row.query, snapshot, into, desc);
		return;
	}

	MemoryContext context =
	    AllocSetContextCreate(CurrentMemoryContext, "cache_ext reading", ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	Reading reading = {};
	Reading *r = &reading;

	r->definition = definition;
	r->snapshot = snapshot;
	r->filter = filter;
	r->into = into;
	r->desc = desc;
	r->scratch = AllocSetContextCreate(context, "cache_ext result row", ALLOCSET_SMALL_SIZES);
	r->pending = make_pending(definition, context);
	r->parts = static_cast<Store **>(palloc0(sizeof(Store *) * Max(definition->part_count, 1)));
	r->indexes = static_cast<SourceIndex **>(
	    palloc0(sizeof(SourceIndex *) * Max(definition->part_count, 1)));
	prepare_outputs(r);

	add_logs(r->pending, snapshot);
	if (r->pending->rows >= kRowsWorthTelling && !RecoveryInProgress())
		if (pg::WorkerSlot *slot = pg::my_worker_slot())
			pg::note_reader(slot);
	r->last_change = Max(progress.last_change, r->pending->last_change);
	r->totals = open_totals(definition, AccessShareLock);
	read_sides(r->pending, snapshot);
	read_windows(r->pending, snapshot, filter, r->totals);
	for (int i = 0; i < definition->part_count; ++i)
	{
		if (definition->parts[i].by_index)
			note_changes(r->pending, i);
		else if (definition->parts[i].kind == PartKind::kValues)
			resolve_values(r, i);
		else if (definition->parts[i].kind == PartKind::kExists)
			resolve_exists(r, i);
	}
	if (definition->group_count == 0)
		read_ungrouped(r);
	else
		read_grouped(r);

	close_store(r->totals);
	for (int i = 0; i < definition->part_count; ++i)
	{
		close_store(r->parts[i]);
		close_source_index(r->indexes[i]);
	}
	FreeExprContext(r->econtext, true);
	ExecDropSingleTupleTableSlot(r->raw);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);

	if (r->lacks_index)
	{
		tuplestore_clear(into);
		run_query(definition->row.query, snapshot, into, desc);
	}
}

void
read_pending(Definition *definition, Snapshot snapshot, int64 *rows, TimestampTz *last_change)
{
	MemoryContext context =
	    AllocSetContextCreate(CurrentMemoryContext, "cache_ext pending", ALLOCSET_DEFAULT_SIZES);
	Pending *pending = make_pending(definition, context);

	add_logs(pending, snapshot);
	*rows = pending->rows;
	*last_change =
	    Max(read_progress(definition->row.id, snapshot).last_change, pending->last_change);
	MemoryContextDelete(context);
}

} /* namespace cache_ext::statistics */
