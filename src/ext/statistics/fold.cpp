/*-------------------------------------------------------------------------
 *
 * fold.cpp
 *		Moving partial rows from the logs into totals and parts.
 *
 * One transaction deletes the partial rows that a fresh snapshot sees and adds
 * the same to the tables, so the sum that any snapshot reads is unchanged.
 * One session folds at a time (fold lock), so the states it reads are the
 * newest.  See README.md for the argument.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/fold.hpp"
#include "ext/statistics/sides.hpp"
#include "ext/statistics/statistics.hpp"
#include "ext/statistics/store.hpp"
#include "ext/statistics/summand.hpp"
#include "pg/guard.hpp"
#include "pg/maintenance_lock.hpp"
#include "pg/memory.hpp"

extern "C" {
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "common/int.h"
#include "utils/datum.h"
#include "utils/numeric.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
}

namespace cache_ext::statistics {

/* A fold stops collecting at this much memory; the rest is for the next one. */
constexpr Size kMaxCollected = (Size) 256 * 1024 * 1024;

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
	int columns = part.key_count + part.cell_count;
	auto *values = static_cast<Datum *>(palloc(sizeof(Datum) * columns));
	auto *isnull = static_cast<bool *>(palloc(sizeof(bool) * columns));
	TupleTableSlot *row = find_row(store, snapshot, key, nulls);

	for (int i = 0; i < part.cell_count; ++i)
	{
		before[i] = row == nullptr
		                ? 0
		                : load_cell(part.cell_is_sum[i], row->tts_values[part.key_count + i]);
		after[i] = add_cells(part.cell_is_sum[i], before[i], change[i]);
	}
	if (row != nullptr && cells_are_zero(after, part.cell_is_sum, part.cell_count))
	{
		delete_from(store, &row->tts_tid);
		return;
	}
	memcpy(values, key, sizeof(Datum) * part.key_count);
	memcpy(isnull, nulls, sizeof(bool) * part.key_count);
	for (int i = 0; i < part.cell_count; ++i)
		store_cell(part.cell_is_sum[i], after[i], &values[part.key_count + i],
		           &isnull[part.key_count + i]);
	if (row != nullptr)
	{
		ItemPointerData tid = row->tts_tid;
		update_in(store, &tid, values, isnull);
	}
	else if (!cells_are_zero(after, part.cell_is_sum, part.cell_count))
		insert_into(store, values, isnull);
}

/* ---- parts ---- */

bool
is_better(AggregateKind kind, Store *store, Datum candidate, Datum than)
{
	int order = compare_values(store, store->key_count - 1, candidate, than);

	return kind == AggregateKind::kMaximum ? order > 0 : order < 0;
}

void
note_value(Extreme **note, AggregateKind kind, Store *store, Datum value, int64 before, int64 after,
           MemoryContext context)
{
	if (*note == nullptr)
		*note = static_cast<Extreme *>(MemoryContextAllocZero(context, sizeof(Extreme)));
	if (before > 0 && after <= 0)
		(*note)->removed = true;
	if (after > 0)
	{
		if (!(*note)->has_candidate || is_better(kind, store, value, (*note)->candidate))
			(*note)->candidate = value;
		(*note)->has_candidate = true;
	}
}

void
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

/*
 * New states of a part with values.  Each value that appears or disappears
 * changes the distinct totals of its group; each touched group is entered into
 * the pending totals with what becomes of its extremes.
 */
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

		int64 *totals = key_cells(pending->totals, key, nulls, true) + d->cell_count;
		for (int i = 0; i < d->derived_count; ++i)
		{
			const Derived &derived = d->derived[i];

			if (derived.part != number)
				continue;
			if (derived.kind == AggregateKind::kDistinct)
				note_presence(derived, &totals[i], part.keys[d->group_count].type,
				              key[d->group_count], before, after, pending->context);
			else
				note_value(reinterpret_cast<Extreme **>(&totals[i]), derived.kind, store,
				           key[d->group_count], before, after, pending->context);
		}
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

/* The stored extreme, unless a change moves it: outwards by a candidate, inwards by a removal. */
static void
fold_extreme(const Definition *d, const Derived &derived, Store *store, Snapshot snapshot,
             const Datum *group, const bool *nulls, const Extreme *change, Datum *value, bool *null)
{
	if (change == nullptr)
		return;
	if (change->removed)
		*null = !outermost(d, derived, store, snapshot, group, nulls, value);
	else if (change->has_candidate &&
	         (*null || is_better(derived.kind, store, change->candidate, *value)))
	{
		*value = change->candidate;
		*null = false;
	}
}

static void
apply_totals(Pending *pending, Snapshot snapshot)
{
	Definition *d = pending->definition;
	Store *store = open_totals(d, RowExclusiveLock);
	auto **parts = static_cast<Store **>(palloc0(sizeof(Store *) * Max(d->part_count, 1)));
	int columns = d->totals_columns();
	auto *values = static_cast<Datum *>(palloc(sizeof(Datum) * columns));
	auto *isnull = static_cast<bool *>(palloc(sizeof(bool) * columns));

	for (int i = 0; i < d->derived_count; ++i)
		if (d->derived[i].kind != AggregateKind::kDistinct && parts[d->derived[i].part] == nullptr)
			parts[d->derived[i].part] = open_part(d, d->derived[i].part, AccessShareLock);

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
				fold_extreme(d, derived, parts[derived.part], snapshot, group, nulls,
				             reinterpret_cast<const Extreme *>(change[d->cell_count + i]),
				             &values[column], &isnull[column]);
				empty = empty && isnull[column];
			}
		}
		if (row == nullptr && !(empty && d->group_count > 0))
			insert_into(store, values, isnull);
		else if (row != nullptr)
		{
			ItemPointerData tid = row->tts_tid;

			if (empty && d->group_count > 0)
				delete_from(store, &tid);
			else
				update_in(store, &tid, values, isnull);
		}
		MemoryContextReset(scratch);
	});
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);

	for (int i = 0; i < d->part_count; ++i)
		close_store(parts[i]);
	close_store(store);
}

void
apply(Pending *pending)
{
	Definition *d = pending->definition;

	fold_sides(pending);
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	for (int i = 0; i < d->part_count; ++i)
	{
		if (d->parts[i].kind == PartKind::kValues)
			apply_values(pending, i, snapshot);
		else if (d->parts[i].kind == PartKind::kExists)
			apply_exists(pending, i, snapshot);
	}
	UnregisterSnapshot(snapshot);

	/* Extremes are looked up in the parts as they are now. */
	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	apply_totals(pending, snapshot);
	UnregisterSnapshot(snapshot);

	write_progress(d->row.id, pending->last_change, pending->rows);
	CommandCounterIncrement();
}

/* ---- collecting ---- */

struct Folding
{
	MemoryContext context;
	List *pendings; /* of Pending * */
	Pending *last;
	int64 rows;
};

static Pending *
pending_of(Folding *folding, int32 statistic)
{
	ListCell *cell;

	if (folding->last != nullptr && folding->last->definition->row.id == statistic)
		return folding->last;
	foreach (cell, folding->pendings)
	{
		auto *pending = static_cast<Pending *>(lfirst(cell));

		if (pending->definition->row.id == statistic)
			return folding->last = pending;
	}

	Definition *definition = definition_of(statistic);
	if (definition == nullptr)
		return nullptr;

	MemoryContext caller = MemoryContextSwitchTo(folding->context);
	folding->last = make_pending(definition, folding->context);
	folding->pendings = lappend(folding->pendings, folding->last);
	MemoryContextSwitchTo(caller);
	return folding->last;
}

static void
collect_row(Folding *folding, std::string_view delta, TimestampTz at)
{
	Decoder entries(delta.data(), delta.size());
	Pending *previous = nullptr;

	while (!entries.done())
	{
		std::string_view bytes = entries.sized_bytes();
		Decoder entry(bytes.data(), bytes.size());
		auto statistic = (int32) entry.varint();
		auto part = (int) entry.varint() - 1;
		Pending *pending = pending_of(folding, statistic);

		if (pending == nullptr)
			continue;
		add_entry(pending, part, &entry);
		if (pending != previous)
			++pending->rows;
		pending->last_change = Max(pending->last_change, at);
		previous = pending;
	}
}

static void
collect_log(Folding *folding, Oid log, Snapshot snapshot)
{
	Relation relation = table_open(log, RowExclusiveLock);
	TupleTableSlot *slot = table_slot_create(relation, nullptr);
	TableScanDesc scan = table_beginscan(relation, snapshot, 0, nullptr);

	while (MemoryContextMemAllocated(folding->context, true) < kMaxCollected &&
	       table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		collect_row(folding, pg::view(DatumGetPointer(slot->tts_values[kLogDelta - 1])),
		            DatumGetTimestampTz(slot->tts_values[kLogAt - 1]));
		simple_heap_delete(relation, &slot->tts_tid);
		++folding->rows;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(relation, NoLock);
}

int64
fold_sources(List *sources)
{
	ListCell *cell;
	Folding folding = {};

	folding.context =
	    AllocSetContextCreate(CurrentMemoryContext, "cache_ext fold", ALLOCSET_DEFAULT_SIZES);

	CommandCounterIncrement();
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	foreach (cell, sources)
		collect_log(&folding, static_cast<SourceRow *>(lfirst(cell))->log, snapshot);
	UnregisterSnapshot(snapshot);

	foreach (cell, folding.pendings)
		apply(static_cast<Pending *>(lfirst(cell)));
	MemoryContextDelete(folding.context);
	return folding.rows;
}

int64
fold(bool wait)
{
	return pg::guard([&]() -> int64 {
		if (!pg::take_maintenance_lock(pg::Maintenance::kFolding, wait))
			return -1;
		return fold_sources(all_sources());
	});
}

} /* namespace cache_ext::statistics */
