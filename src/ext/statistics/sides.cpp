/*-------------------------------------------------------------------------
 *
 * sides.cpp
 *		Blocks with several tables; see sides.hpp.
 *
 * A block's result is a sum over all combinations of one entry of each side
 * whose ties agree.  A combination counts for the product of its weights: the
 * rows of an entry of a joined table; one or zero for a condition about another
 * table.  Where a cell belongs to a side, the entry's cell takes the place of
 * its rows.  So the result is linear in each side, and a change of all sides at
 * once is the sum, over the sides in order, of the change of that side with the
 * sides before it as they are now and those after it as they were.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/fold.hpp"
#include "ext/statistics/sides.hpp"
#include "ext/statistics/sources.hpp"
#include "ext/statistics/window.hpp"

extern "C" {
#include "access/xact.h"
#include "common/int.h"
#include "utils/numeric.h"
#include "utils/snapmgr.h"
}

namespace cache_ext::statistics {

/* An entry of a side's part or of its pending rows; in a combination, with its weight. */
struct Entry
{
	const Datum *values;
	const bool *nulls;
	const int64 *cells; /* nullptr: it counts by its weight alone */
	int64 weight;
	Entry *next; /* of pending entries with the same tie */
};

/* How entries of a side are found from a neighbour: by its own tie, or by the tie of a child. */
struct Road
{
	int side;
	int count;
	const int *columns;
	Store *store;
	KeyTable *pending; /* by these columns: the first Entry of a list; nullptr until used */
};

struct Combining
{
	Pending *pending;  /* of the sides */
	Pending *into;     /* where combinations are entered */
	KeyTable *changes; /* entries of the changing side */
	Definition *definition;
	const Block *block;
	Snapshot snapshot;
	int changing;  /* the side whose change is entered */
	int now_below; /* others with a smaller number are parts plus pending rows, not parts alone */
	Road *up;      /* of each side: from its parent */
	Road *down;    /* of each side: to its parent */
	Entry *chosen;
	bool *is_chosen;
	MemoryContext scratch; /* of one changed entry */
	MemoryContext terms;   /* of one combination */
};

static const Part &
part_of(const Combining *c, int side)
{
	return c->definition->parts[c->block->sides[side].part];
}

static KeyTable *
pending_of(const Combining *c, int side)
{
	return c->pending->parts[c->block->sides[side].part];
}

/* ---- weights ---- */

static int64
times(int64 left, int64 right)
{
	int64 product;

	if (pg_mul_s64_overflow(left, right, &product))
		ereport(ERROR, (errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
		                errmsg("count of a statistic out of range")));
	return product;
}

static int64
times_cell(bool is_sum, int64 cell, int64 weight)
{
	if (weight == 1)
		return cell;
	if (!is_sum)
		return times(cell, weight);
	if (cell == 0 || weight == 0)
		return 0;
	return (int64) DirectFunctionCall2(numeric_mul, (Datum) cell,
	                                   NumericGetDatum(int64_to_numeric(weight)));
}

static int64
condition_weight(SideRole role, int64 rows)
{
	return role == SideRole::kExists ? rows > 0 : rows <= 0;
}

/* ---- entering a combination ---- */

static void
place_values(const Combining *c, const Place *places, int count, Datum *values, bool *nulls)
{
	for (int i = 0; i < count; ++i)
	{
		const Entry &entry = c->chosen[places[i].side];

		values[i] = entry.values[places[i].number];
		nulls[i] = entry.nulls[places[i].number];
	}
}

static void
enter_cells(Combining *c, int64 *cells)
{
	const Block &block = *c->block;
	MemoryContext caller = MemoryContextSwitchTo(c->terms);

	for (int i = 0; i < block.cell_count; ++i)
	{
		const Cell &cell = c->definition->cells[block.first_cell + i];
		bool is_sum = c->definition->cell_is_sum[block.first_cell + i];
		int64 value = c->chosen[cell.place.side].cells[cell.place.number];

		for (int side = 0; side < block.side_count; ++side)
			if (side != cell.place.side)
				value = times_cell(is_sum, value, c->chosen[side].weight);

		add_to_cell(c->into->context, is_sum, &cells[i], value);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextReset(c->terms);
}

static void
enter(Combining *c)
{
	Definition *d = c->definition;
	Datum values[INDEX_MAX_KEYS];
	bool nulls[INDEX_MAX_KEYS];
	const Window *window = c->block->window;
	int keys = d->group_count;
	int64 rows = 1;

	CHECK_FOR_INTERRUPTS();
	if (window == nullptr)
	{
		place_values(c, d->group_places, d->group_count, values, nulls);
		enter_cells(c, key_cells(c->into->totals, values, nulls, true) + c->block->first_cell);
	}
	else
	{
		place_values(c, &window->place, 1, values, nulls);
		place_values(c, d->group_places, d->group_count, values + 1, nulls + 1);
		enter_cells(c, key_cells(c->into->parts[window->part], values, nulls, true));
		++keys;
	}

	for (int side = 0; side < c->block->side_count; ++side)
		rows = times(rows, c->chosen[side].weight);
	for (int i = 0; i < d->part_count && rows != 0; ++i)
	{
		const Part &part = d->parts[i];

		if (!part.has_values() || &d->blocks[part.block] != c->block)
			continue;
		place_values(c, &part.place, 1, &values[keys], &nulls[keys]);
		if (nulls[keys])
			continue;
		int64 *count = key_cells(c->into->parts[i], values, nulls, true);
		*count = add_cells(false, *count, rows);
	}
}

/* ---- finding entries ---- */

static Road
make_road(const Combining *c, int side, int count, const int *columns)
{
	return {
	    side, count, columns,
	    open_part_by(c->definition, c->block->sides[side].part, columns, count, AccessShareLock),
	    nullptr};
}

/* The pending entries of a side, by the columns of a road. */
static void
index_pending(const Combining *c, Road *road)
{
	MemoryContext context = c->pending->context;
	KeyTable *all = pending_of(c, road->side);
	const Part &part = part_of(c, road->side);
	MemoryContext caller = MemoryContextSwitchTo(context);
	TupleDesc desc = CreateTemplateTupleDesc(road->count);

	for (int i = 0; i < road->count; ++i)
		TupleDescCopyEntry(desc, (AttrNumber) (i + 1), part.key_desc,
		                   (AttrNumber) (road->columns[i] + 1));
	road->pending = make_key_table(road->store->keys, road->count, desc, 1, context);
	for_each_key(all, [&](const Datum *values, const bool *nulls, const int64 *cells) {
		auto *entry = static_cast<Entry *>(palloc(sizeof(Entry)));
		auto *own_values = static_cast<Datum *>(palloc(sizeof(Datum) * part.key_count));
		auto *own_nulls = static_cast<bool *>(palloc(sizeof(bool) * part.key_count));
		Datum tie[INDEX_MAX_KEYS];
		bool tie_nulls[INDEX_MAX_KEYS];

		memcpy(own_values, values, sizeof(Datum) * part.key_count);
		memcpy(own_nulls, nulls, sizeof(bool) * part.key_count);
		for (int i = 0; i < road->count; ++i)
		{
			tie[i] = values[road->columns[i]];
			tie_nulls[i] = nulls[road->columns[i]];
		}
		int64 *first = key_cells(road->pending, tie, tie_nulls, true);
		*entry = {own_values, own_nulls, cells, cells[0], reinterpret_cast<Entry *>(*first)};
		*first = reinterpret_cast<int64>(entry);
	});
	MemoryContextSwitchTo(caller);
}

static bool
is_changed_before(const Combining *c, int side)
{
	return side < c->now_below && side != c->changing && pending_of(c, side)->entries > 0;
}

/* How many rows a condition's table has for a key. */
static int64
rows_of_key(Combining *c, Road *road, const Datum *tie, const bool *nulls)
{
	TupleTableSlot *row = find_row(road->store, c->snapshot, tie, nulls);
	int64 rows = row == nullptr ? 0 : DatumGetInt64(row->tts_values[road->count]);

	if (is_changed_before(c, road->side))
	{
		const int64 *change = key_cells(pending_of(c, road->side), tie, nulls, false);

		rows += change == nullptr ? 0 : *change;
	}
	return rows;
}

static void choose_next(Combining *c);

static void
choose(Combining *c, int side, const Entry &entry)
{
	if (entry.weight == 0 && entry.cells == nullptr)
		return;
	c->chosen[side] = entry;
	c->is_chosen[side] = true;
	choose_next(c);
	c->is_chosen[side] = false;
}

/* A row of a part; its sums stay in the row, which is there until the next one is asked for. */
static void
choose_stored(Combining *c, Road *road, TupleTableSlot *row, int64 *cells)
{
	const Part &part = part_of(c, road->side);

	for (int i = 0; i < part.cell_count; ++i)
		cells[i] = (int64) row->tts_values[part.key_count + i];
	choose(c, road->side, {row->tts_values, row->tts_isnull, cells, cells[0], nullptr});
}

/* Choose, one after another, all entries of a side that a neighbour's tie leads to. */
static void
walk_road(Combining *c, Road *road, const Entry &from, const int *from_columns)
{
	SideRole role = c->block->sides[road->side].role;
	Datum tie[INDEX_MAX_KEYS];
	bool nulls[INDEX_MAX_KEYS];
	bool any_null = false;

	for (int i = 0; i < road->count; ++i)
	{
		tie[i] = from.values[from_columns[i]];
		nulls[i] = from.nulls[from_columns[i]];
		any_null = any_null || nulls[i]; /* which equals nothing */
	}
	if (role != SideRole::kJoined)
	{
		int64 rows = any_null ? 0 : rows_of_key(c, road, tie, nulls);

		choose(c, road->side, {tie, nulls, nullptr, condition_weight(role, rows), nullptr});
		return;
	}
	if (any_null)
		return;

	auto *cells = static_cast<int64 *>(palloc(sizeof(int64) * part_of(c, road->side).cell_count));
	begin_walk(road->store, c->snapshot, tie, nulls, road->count);
	while (TupleTableSlot *row = next_row(road->store, ForwardScanDirection))
		choose_stored(c, road, row, cells);
	pfree(cells);
	if (!is_changed_before(c, road->side))
		return;
	if (road->pending == nullptr)
		index_pending(c, road);

	const int64 *first = key_cells(road->pending, tie, nulls, false);
	for (auto *entry = reinterpret_cast<Entry *>(first == nullptr ? 0 : *first); entry != nullptr;
	     entry = entry->next)
		choose(c, road->side, *entry);
}

/* Extend the combination by a side next to the chosen ones. */
static void
choose_next(Combining *c)
{
	for (int side = 0; side < c->block->side_count; ++side)
	{
		const Side &one = c->block->sides[side];

		if (one.parent < 0 || c->is_chosen[side] == c->is_chosen[one.parent])
			continue;
		if (c->is_chosen[side])
			walk_road(c, &c->down[side], c->chosen[side], one.own_tie);
		else
			walk_road(c, &c->up[side], c->chosen[one.parent], one.parent_tie);
		return;
	}
	enter(c);
}

/* ---- the change of one side ---- */

/* The change of a condition: it counts the same until its key gets rows or loses them. */
static Entry
changed_condition(Combining *c, const Datum *values, const bool *nulls, const int64 *change)
{
	const Side &side = c->block->sides[c->changing];
	TupleTableSlot *row = find_row(c->up[c->changing].store, c->snapshot, values, nulls);
	int64 before =
	    row == nullptr ? 0 : DatumGetInt64(row->tts_values[part_of(c, c->changing).key_count]);
	int64 weight =
	    condition_weight(side.role, before + *change) - condition_weight(side.role, before);

	return {values, nulls, nullptr, weight, nullptr};
}

/* Enter the entries that `changes` has of a side. */
static void
enter_changes(Combining *c, int side, Pending *changes)
{
	c->changing = side;
	c->changes = changes->parts[c->block->sides[side].part];

	const Part &part = part_of(c, side);
	bool is_condition = c->block->sides[c->changing].role != SideRole::kJoined;
	MemoryContext caller = MemoryContextSwitchTo(c->scratch);

	for_each_key(c->changes, [&](const Datum *key, const bool *key_nulls, const int64 *change) {
		Datum values[INDEX_MAX_KEYS];
		bool nulls[INDEX_MAX_KEYS];

		if (cells_are_zero(change, part.cell_is_sum, part.cell_count))
			return;
		memcpy(values, key, sizeof(Datum) * part.key_count);
		memcpy(nulls, key_nulls, sizeof(bool) * part.key_count);
		if (is_condition)
			choose(c, c->changing, changed_condition(c, values, nulls, change));
		else
			choose(c, c->changing, {values, nulls, change, *change, nullptr});
		MemoryContextReset(c->scratch);
	});
	MemoryContextSwitchTo(caller);
}

static void
begin_combining(Combining *c, Pending *pending, Pending *into, const Block *block,
                Snapshot snapshot)
{
	int sides = block->side_count;

	c->pending = pending;
	c->into = into;
	c->definition = pending->definition;
	c->block = block;
	c->snapshot = snapshot;
	c->up = static_cast<Road *>(palloc0(sizeof(Road) * sides));
	c->down = static_cast<Road *>(palloc0(sizeof(Road) * sides));
	c->chosen = static_cast<Entry *>(palloc0(sizeof(Entry) * sides));
	c->is_chosen = static_cast<bool *>(palloc0(sizeof(bool) * sides));
	for (int i = 1; i < sides; ++i)
	{
		const Side &side = block->sides[i];

		c->up[i] = make_road(c, i, side.tie_count, side.own_tie);
		c->down[i] = make_road(c, side.parent, side.tie_count, side.parent_tie);
	}
	c->scratch = AllocSetContextCreate(CurrentMemoryContext, "cache_ext combinations",
	                                   ALLOCSET_DEFAULT_SIZES);
	c->terms =
	    AllocSetContextCreate(CurrentMemoryContext, "cache_ext combination", ALLOCSET_SMALL_SIZES);
}

static void
end_combining(Combining *c)
{
	for (int i = 1; i < c->block->side_count; ++i)
	{
		close_store(c->up[i].store);
		close_store(c->down[i].store);
	}
	MemoryContextDelete(c->scratch);
	MemoryContextDelete(c->terms);
}

void
read_sides(Pending *pending, Snapshot snapshot)
{
	Definition *d = pending->definition;

	for (int b = 0; b < d->block_count; ++b)
	{
		const Block &block = d->blocks[b];
		bool changed = false;
		Combining combining = {};

		for (int i = 0; i < block.side_count; ++i)
			changed = changed || pending->parts[block.sides[i].part]->entries > 0;
		if (!changed)
			continue;
		begin_combining(&combining, pending, pending, &block, snapshot);
		for (int side = 0; side < block.side_count; ++side)
		{
			combining.now_below = side;
			enter_changes(&combining, side, pending);
		}
		end_combining(&combining);
	}
}

void
combine_rows(Pending *pending, Pending *rows, const Block &block, int side, Snapshot snapshot)
{
	Combining combining = {};

	if (rows->parts[block.sides[side].part]->entries == 0)
		return;
	combining.now_below = block.side_count;
	begin_combining(&combining, pending, rows, &block, snapshot);
	enter_changes(&combining, side, rows);
	end_combining(&combining);
}

/* ---- folding ---- */

static void
fold_side(Pending *pending, const Block &block, int number)
{
	int part = block.sides[number].part;
	Combining combining = {};

	if (pending->parts[part]->entries == 0)
		return;
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	begin_combining(&combining, pending, pending, &block, snapshot);
	enter_changes(&combining, number, pending);
	end_combining(&combining);
	add_to_part(pending, part, snapshot);
	UnregisterSnapshot(snapshot);
	CommandCounterIncrement(); /* the next side meets this one as it is now */
}

void
fold_sides(Pending *pending)
{
	Definition *d = pending->definition;

	for (int b = 0; b < d->block_count; ++b)
		for (int i = 0; i < d->blocks[b].side_count; ++i)
			fold_side(pending, d->blocks[b], i);
}

/* ---- indexes ---- */

/* The unique index of the parent's part, or that of an earlier side, may serve as well. */
static bool
needs_index(const Block &block, int number)
{
	const Side &side = block.sides[number];
	bool leads = true;

	for (int k = 0; k < side.tie_count; ++k)
		leads = leads && side.parent_tie[k] == k;
	for (int i = 1; i < number && !leads; ++i)
	{
		const Side &other = block.sides[i];

		leads = other.parent == side.parent && other.tie_count == side.tie_count &&
		        memcmp(other.parent_tie, side.parent_tie, sizeof(int) * side.tie_count) == 0;
	}
	return !leads;
}

void
create_side_indexes(const Definition *definition, int32 statistic)
{
	for (int b = 0; b < definition->block_count; ++b)
		for (int i = 1; i < definition->blocks[b].side_count; ++i)
		{
			const Side &side = definition->blocks[b].sides[i];
			int above = definition->blocks[b].sides[side.parent].part;
			char name[NAMEDATALEN];
			StringInfoData columns;

			if (!needs_index(definition->blocks[b], i))
				continue;
			initStringInfo(&columns);
			for (int k = 0; k < side.tie_count; ++k)
				appendStringInfo(&columns, "%sk%d", k == 0 ? "" : ", ", side.parent_tie[k] + 1);
			part_name(statistic, above, name);
			run("CREATE INDEX %s_side_%d_%d ON cache_ext_internal.%s (%s)", name, b, i, name,
			    columns.data);
		}
}

} /* namespace cache_ext::statistics */
