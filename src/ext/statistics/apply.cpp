/*-------------------------------------------------------------------------
 *
 * apply.cpp
 *		From the sum of partial rows to new states of totals and parts.
 *
 * The fold lock is held, so the states that are read are the newest.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/extreme.hpp"
#include "ext/statistics/fold.hpp"
#include "ext/statistics/sides.hpp"
#include "ext/statistics/source_index.hpp"
#include "ext/statistics/statistics.hpp"
#include "ext/statistics/store.hpp"
#include "ext/statistics/summand.hpp"

extern "C" {
#include "access/table.h"
#include "access/xact.h"
#include "common/int.h"
#include "storage/lmgr.h"
#include "utils/datum.h"
#include "utils/numeric.h"
#include "utils/snapmgr.h"
}

namespace cache_ext::statistics {

/* ---- cells as columns ---- */

void
store_cell(bool is_sum, int64 cell, Datum *value, bool *null)
{
	*null = false;
	if (!is_sum)
		*value = Int64GetDatum(cell);
	else
		*value = cell == 0 ? NumericGetDatum(int64_to_numeric(0)) : (Datum) cell;
}

int64
load_cell(bool is_sum, Datum value)
{
	return is_sum ? (int64) PointerGetDatum(PG_DETOAST_DATUM_COPY(value)) : DatumGetInt64(value);
}

static int64
add_counts(int64 left, int64 right)
{
	int64 sum;

	if (pg_add_s64_overflow(left, right, &sum))
		ereport(ERROR, (errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
		                errmsg("count of a statistic out of range")));
	return sum;
}

int64
add_cells(bool is_sum, int64 left, int64 right)
{
	return is_sum ? add_sums(left, right) : add_counts(left, right);
}

/* A row of a part, changed; the state before and after. */
static void
upsert_part(Store *store, const Part &part, Snapshot snapshot, const Datum *key, const bool *nulls,
            const int64 *change, int64 *before, int64 *after)
{
	int columns = row_columns(store, part.key_count + part.cell_count);
	auto *values = static_cast<Datum *>(palloc(sizeof(Datum) * columns));
	auto *isnull = static_cast<bool *>(palloc(sizeof(bool) * columns));
	auto add_to = [&](const TupleTableSlot *row) {
		for (int i = 0; i < part.cell_count; ++i)
		{
			before[i] = row == nullptr
			                ? 0
			                : load_cell(part.cell_is_sum[i], row->tts_values[part.key_count + i]);
			after[i] = add_cells(part.cell_is_sum[i], before[i], change[i]);
			store_cell(part.cell_is_sum[i], after[i], &values[part.key_count + i],
			           &isnull[part.key_count + i]);
		}
	};

	memcpy(values, key, sizeof(Datum) * part.key_count);
	memcpy(isnull, nulls, sizeof(bool) * part.key_count);
	if (worth_trying(store))
	{
		add_to(nullptr);
		if (cells_are_zero(after, part.cell_is_sum, part.cell_count) ||
		    try_insert(store, values, isnull))
			return;
	}

	TupleTableSlot *row = find_row(store, snapshot, key, nulls);

	add_to(row);
	if (row != nullptr && cells_are_zero(after, part.cell_is_sum, part.cell_count))
	{
		delete_from(store, &row->tts_tid);
		return;
	}
	if (row != nullptr)
	{
		ItemPointerData tid = row->tts_tid;
		update_in(store, &tid, values, isnull);
	}
	else if (!cells_are_zero(after, part.cell_is_sum, part.cell_count))
		insert_into(store, values, isnull);
}

/* ---- parts ---- */

static void
note_presence(const Derived &derived, int64 *total, Oid type, Datum value, int64 before,
              int64 after, MemoryContext context)
{
	int sign = (after > 0) - (before > 0);

	if (sign == 0)
		return;
	MemoryContext caller = MemoryContextSwitchTo(context);
	*total = add_cells(derived.is_sum(), *total, share_of_value(derived.role, type, value, sign));
	MemoryContextSwitchTo(caller);
}

void
note_change(Pending *pending, int part, const Datum *key, const bool *nulls, int64 before,
            int64 after)
{
	Definition *d = pending->definition;
	int64 *totals = key_cells(pending->totals, key, nulls, true) + d->cell_count;
	Datum value = key[d->group_count];

	for (int i = 0; i < d->derived_count; ++i)
	{
		const Derived &derived = d->derived[i];

		if (derived.part != part)
			continue;
		if (derived.kind == AggregateKind::kDistinct)
			note_presence(derived, &totals[i], d->parts[part].value_key().type, value, before,
			              after, pending->context);
		else
			note_value(reinterpret_cast<Extreme **>(&totals[i]), derived.kind, d->parts[part],
			           value, before, after, pending->context);
	}
}

void
note_changes(Pending *pending, int part)
{
	for_each_key(pending->parts[part], [&](const Datum *key, const bool *nulls, int64 *change) {
		CHECK_FOR_INTERRUPTS();
		if (*change != 0)
			note_change(pending, part, key, nulls, *change<0, *change> 0);
	});
}

/* New states of a part with values. */
static void
apply_values(Pending *pending, int number, Snapshot snapshot)
{
	Definition *d = pending->definition;
	const Part &part = d->parts[number];
	Store *store = open_part(d, number, RowExclusiveLock);
	MemoryContext scratch =
	    AllocSetContextCreate(CurrentMemoryContext, "cache_ext part row", ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(scratch);

	for_each_key(pending->parts[number], [&](const Datum *key, const bool *nulls, int64 *change) {
		int64 before;
		int64 after;

		CHECK_FOR_INTERRUPTS();
		if (*change == 0)
			return;
		upsert_part(store, part, snapshot, key, nulls, change, &before, &after);
		note_change(pending, number, key, nulls, before, after);
		MemoryContextReset(scratch);
	});
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);
	close_store(store);
}

/*
 * New states of join keys.  A key counts with all its left rows or with none,
 * by whether the right side has rows; the totals take the difference.
 */
static void
apply_exists(Pending *pending, int number, Snapshot snapshot)
{
	Definition *d = pending->definition;
	const Part &part = d->parts[number];
	const Block &block = d->blocks[part.block];
	Store *store = open_part(d, number, RowExclusiveLock);
	auto *before = static_cast<int64 *>(palloc(sizeof(int64) * part.cell_count));
	auto *after = static_cast<int64 *>(palloc(sizeof(int64) * part.cell_count));
	MemoryContext scratch =
	    AllocSetContextCreate(CurrentMemoryContext, "cache_ext part row", ALLOCSET_SMALL_SIZES);
	MemoryContext outer = MemoryContextSwitchTo(scratch);

	for_each_key(pending->parts[number], [&](const Datum *key, const bool *nulls, int64 *change) {
		CHECK_FOR_INTERRUPTS();
		if (cells_are_zero(change, part.cell_is_sum, part.cell_count))
			return;
		upsert_part(store, part, snapshot, key, nulls, change, before, after);

		MemoryContext caller = MemoryContextSwitchTo(pending->context);
		int64 *totals = key_cells(pending->totals, nullptr, nullptr, true);
		for (int i = 0; i < block.cell_count; ++i)
			totals[block.first_cell + i] =
			    exists_change(block, part, i, before, after, totals[block.first_cell + i]);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(scratch);
	});
	MemoryContextSwitchTo(outer);
	MemoryContextDelete(scratch);
	close_store(store);
}

int64
own_sum(int64 sum)
{
	return sum == 0 ? 0 : (int64) datumCopy((Datum) sum, false, -1);
}

int64
exists_change(const Block &block, const Part &part, int cell, const int64 *before,
              const int64 *after, int64 total)
{
	bool is_sum = part.cell_is_sum[cell];

	if (exists_counts(block, before[part.cell_count - 1]))
		total = is_sum ? add_sums(total, negate_sum(before[cell])) : total - before[cell];
	if (exists_counts(block, after[part.cell_count - 1]))
		total = is_sum ? add_sums(total, own_sum(after[cell])) : total + after[cell];
	return total;
}

bool
exists_counts(const Block &block, int64 matches)
{
	return block.anti ? matches == 0 : matches > 0;
}

void
add_to_cell(MemoryContext context, bool is_sum, int64 *total, int64 term)
{
	int64 before = *total;
	MemoryContext caller = MemoryContextSwitchTo(context);

	if (!is_sum)
		*total = add_counts(before, term);
	else if (before == 0)
		*total = own_sum(term);
	else if (term != 0)
	{
		*total = add_sums(before, term);
		pfree(DatumGetPointer((Datum) before));
	}
	MemoryContextSwitchTo(caller);
}

void
add_to_part(Pending *pending, int number, Snapshot snapshot)
{
	const Part &part = pending->definition->parts[number];
	Store *store = open_part(pending->definition, number, RowExclusiveLock);
	auto *before = static_cast<int64 *>(palloc(sizeof(int64) * part.cell_count));
	auto *after = static_cast<int64 *>(palloc(sizeof(int64) * part.cell_count));
	MemoryContext scratch =
	    AllocSetContextCreate(CurrentMemoryContext, "cache_ext part row", ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(scratch);

	for_each_key(pending->parts[number], [&](const Datum *key, const bool *nulls, int64 *change) {
		CHECK_FOR_INTERRUPTS();
		if (!cells_are_zero(change, part.cell_is_sum, part.cell_count))
			upsert_part(store, part, snapshot, key, nulls, change, before, after);
		MemoryContextReset(scratch);
	});
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);
	close_store(store);
}

/* ---- totals ---- */

/* The outermost value of a group that has rows; false when the group has no value. */
static bool
outermost(const Definition *d, const Derived &derived, Store *store, Snapshot snapshot,
          const Datum *group, const bool *nulls, Datum *value)
{
	bool largest = derived.kind == AggregateKind::kMaximum;

	begin_walk(store, snapshot, group, nulls, d->group_count);
	while (TupleTableSlot *row =
	           next_row(store, largest ? BackwardScanDirection : ForwardScanDirection))
	{
		CHECK_FOR_INTERRUPTS();
		if (DatumGetInt64(row->tts_values[d->group_count + 1]) <= 0)
			continue;
		*value = datumCopy(row->tts_values[d->group_count], store->keys[d->group_count].by_value,
		                   store->keys[d->group_count].length);
		return true;
	}
	return false;
}

/* Where the fold looks for extremes that it cannot tell from the change; opened when it does. */
struct Search
{
	const Definition *definition;
	MemoryContext context;
	Store **parts;
	SourceIndex **indexes;
	bool no_index; /* not to be had without waiting */
	Snapshot snapshot;
	Snapshot complete; /* nothing of it is pending; nullptr if something may be */
};

/*
 * A session may have locked the source and wait for this fold, so its locks are
 * taken only if that needs no waiting, and only for a snapshot that the totals
 * will equal.
 */
static SourceIndex *
index_without_waiting(const Definition *d, const Part &part, Snapshot complete)
{
	if (complete == nullptr ||
	    !ConditionalLockRelationOid(d->blocks[part.block].source, AccessShareLock))
		return nullptr;

	Oid index = find_source_index(d, part);
	if (!OidIsValid(index) || !ConditionalLockRelationOid(index, AccessShareLock))
		return nullptr;
	return open_source_index(d, part, index, complete);
}

static bool
look_for_extreme(Search *search, const Derived &derived, const Datum *group, const bool *nulls,
                 Datum *value)
{
	const Definition *d = search->definition;
	const Part &part = d->parts[derived.part];
	Store *&store = search->parts[derived.part];
	SourceIndex *&index = search->indexes[derived.part];
	MemoryContext caller = MemoryContextSwitchTo(search->context);

	if (part.by_index && index == nullptr && !search->no_index)
	{
		index = index_without_waiting(d, part, search->complete);
		search->no_index = index == nullptr;
	}
	if (!part.by_index && store == nullptr)
		store = open_part(d, derived.part, AccessShareLock);
	MemoryContextSwitchTo(caller);

	if (part.by_index)
		return index != nullptr && outermost_in_source(index, derived.kind, group, nulls, value);
	return outermost(d, derived, store, search->snapshot, group, nulls, value);
}

static void
close_search(const Search &search)
{
	for (int i = 0; i < search.definition->part_count; ++i)
	{
		close_store(search.parts[i]);
		close_source_index(search.indexes[i]);
	}
}

/*
 * The stored extreme, moved.  Where values lie in the source alone, NULL says
 * that readers have to look; so it may stand for a value, never for another one.
 */
static void
fold_extreme(Search *where, const Derived &derived, bool is_new, const Datum *group,
             const bool *nulls, const Extreme *change, Datum *value, bool *null)
{
	const Part &part = where->definition->parts[derived.part];
	bool known = !part.by_index || is_new || !*null;

	if (change != nullptr && !(known && move_extreme(derived.kind, part, change, value, null)))
		*null = !look_for_extreme(where, derived, group, nulls, value);
}

static void
apply_totals(Pending *pending, Snapshot snapshot, Snapshot complete)
{
	Definition *d = pending->definition;
	Store *store = open_totals(d, RowExclusiveLock);
	Size parts = Max(d->part_count, 1);
	Search search = {d,
	                 CurrentMemoryContext,
	                 static_cast<Store **>(palloc0(sizeof(Store *) * parts)),
	                 static_cast<SourceIndex **>(palloc0(sizeof(SourceIndex *) * parts)),
	                 false,
	                 snapshot,
	                 complete};
	int columns = d->totals_columns();
	auto *values = static_cast<Datum *>(palloc(sizeof(Datum) * columns));
	auto *isnull = static_cast<bool *>(palloc(sizeof(bool) * columns));

	MemoryContext scratch =
	    AllocSetContextCreate(CurrentMemoryContext, "cache_ext totals row", ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(scratch);
	for_each_key(pending->totals, [&](const Datum *group, const bool *nulls, int64 *change) {
		CHECK_FOR_INTERRUPTS();
		TupleTableSlot *row = find_row(store, snapshot, group, nulls);
		bool empty = true;

		if (d->group_count > 0)
		{
			memcpy(values, group, sizeof(Datum) * d->group_count);
			memcpy(isnull, nulls, sizeof(bool) * d->group_count);
		}
		for (int i = 0; i < d->cell_count; ++i)
		{
			int column = d->totals_cell(i);
			bool is_sum = d->cell_is_sum[i];
			int64 before = row == nullptr ? 0 : load_cell(is_sum, row->tts_values[column]);
			int64 after = add_cells(is_sum, before, change[i]);

			empty = empty && (is_sum ? sum_is_zero(after) : after == 0);
			store_cell(is_sum, after, &values[column], &isnull[column]);
		}
		for (int i = 0; i < d->derived_count; ++i)
		{
			const Derived &derived = d->derived[i];
			int column = d->totals_derived(i);

			if (derived.kind == AggregateKind::kDistinct)
			{
				bool is_sum = derived.is_sum();
				int64 before = row == nullptr ? 0 : load_cell(is_sum, row->tts_values[column]);

				int64 after = add_cells(is_sum, before, change[d->cell_count + i]);

				empty = empty && (is_sum ? sum_is_zero(after) : after == 0);
				store_cell(is_sum, after, &values[column], &isnull[column]);
			}
			else
			{
				values[column] = row == nullptr ? (Datum) 0 : row->tts_values[column];
				isnull[column] = row == nullptr || row->tts_isnull[column];
				fold_extreme(&search, derived, row == nullptr, group, nulls,
				             reinterpret_cast<const Extreme *>(change[d->cell_count + i]),
				             &values[column], &isnull[column]);
				empty = empty && isnull[column];
			}
		}
		if (row == nullptr && !(empty && d->group_count > 0 && complete != nullptr))
			insert_into(store, values, isnull);
		else if (row != nullptr)
		{
			ItemPointerData tid = row->tts_tid;

			/* While part of a change is pending, a row of zeros knows that extremes are not known.
			 */
			if (empty && d->group_count > 0 && complete != nullptr)
				delete_from(store, &tid);
			else
				update_in(store, &tid, values, isnull);
		}
		MemoryContextReset(scratch);
	});
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);

	close_search(search);
	close_store(store);
}

void
apply(Pending *pending, Snapshot complete)
{
	Definition *d = pending->definition;

	note_folded_statistic(d->row.id);
	fold_sides(pending);
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	for (int i = 0; i < d->part_count; ++i)
	{
		if (d->parts[i].by_index)
			note_changes(pending, i);
		else if (d->parts[i].kind == PartKind::kValues)
			apply_values(pending, i, snapshot);
		else if (d->parts[i].kind == PartKind::kExists)
			apply_exists(pending, i, snapshot);
		else if (d->parts[i].kind == PartKind::kBuckets ||
		         d->parts[i].kind == PartKind::kBucketValues)
			add_to_part(pending, i, snapshot);
	}
	UnregisterSnapshot(snapshot);

	/* Extremes are looked up in the parts as they are now. */
	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	apply_totals(pending, snapshot, complete);
	UnregisterSnapshot(snapshot);

	write_progress(d->row.id, pending->last_change, pending->rows, pending->us);
	CommandCounterIncrement();
	note_folded_statistic(0);
}

} /* namespace cache_ext::statistics */
