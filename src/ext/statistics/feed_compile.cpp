/*-------------------------------------------------------------------------
 *
 * feed_compile.cpp
 *		From definitions to expressions that a row is evaluated with; see feed.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include <algorithm>

#include "ext/statistics/feed.hpp"
#include "ext/statistics/feed_plan.hpp"
#include "ext/statistics/log.hpp"
#include "ext/statistics/window.hpp"

extern "C" {
#include "access/attmap.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteManip.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
}

namespace cache_ext::statistics {

/* Expressions of a definition are over the root's columns; a partition may order its own otherwise.
 */
struct Translation
{
	AttrMap *map; /* nullptr: the relation is the root */
};

static AttrMap *
map_columns(TupleDesc root, TupleDesc leaf)
{
	AttrMap *map = make_attrmap(root->natts);

	for (int i = 0; i < root->natts; ++i)
	{
		Form_pg_attribute column = TupleDescAttr(root, i);

		map->attnums[i] = 0;
		for (int j = 0; !column->attisdropped && j < leaf->natts; ++j)
			if (!TupleDescAttr(leaf, j)->attisdropped &&
			    strcmp(NameStr(TupleDescAttr(leaf, j)->attname), NameStr(column->attname)) == 0)
				map->attnums[i] = (AttrNumber) (j + 1);
	}
	return map;
}

static Expr *
translate(const Translation *translation, Expr *expr)
{
	bool whole_row = false;
	auto *copy = (Node *) copyObjectImpl(expr);

	if (copy != nullptr && translation->map != nullptr)
		copy = map_variable_attnos(copy, 1, 0, translation->map, InvalidOid, &whole_row);
	return (Expr *) copy;
}

static ExprState *
compile(const Translation *translation, Expr *expr)
{
	if (expr == nullptr)
		return nullptr;
	return ExecInitExpr(expression_planner(translate(translation, expr)), nullptr);
}

static ExprState *
compile_qual(const Translation *translation, List *quals)
{
	if (quals == NIL)
		return nullptr;

	auto *all = expression_planner(translate(translation, make_ands_explicit(quals)));
	return ExecInitQual(make_ands_implicit(all), nullptr);
}

static KeyType *
copy_types(const KeyType *types, int count)
{
	auto *copy = static_cast<KeyType *>(palloc(sizeof(KeyType) * Max(count, 1)));

	std::copy_n(types, count, copy);
	return copy;
}

/* nullptr when none is. */
static const bool *
copy_sums(const bool *is_sum, int count)
{
	if (std::none_of(is_sum, is_sum + count, [](bool sum) { return sum; }))
		return nullptr;
	auto *copy = static_cast<bool *>(palloc(sizeof(bool) * count));
	std::copy_n(is_sum, count, copy);
	return copy;
}

static const bool *
sums_of_part(const Definition *d, int part)
{
	return copy_sums(d->parts[part].cell_is_sum, d->parts[part].cell_count);
}

constexpr int kNoSide = -1;

/* The cells of a block, or those of one side beyond its rows. */
static void
compile_cells(Feed *feed, const Definition *d, const Block &block, int side,
              const Translation *translation)
{
	const Cell *before = nullptr;

	feed->first_cell = block.first_cell;
	feed->cells_of_key = d->cell_count;
	feed->cells = static_cast<CellFeed *>(palloc0(sizeof(CellFeed) * Max(block.cell_count, 1)));
	for (int i = 0; i < block.cell_count; ++i)
	{
		const Cell &cell = d->cells[block.first_cell + i];

		if (side != kNoSide && (cell.place.side != side || cell.place.number == 0))
			continue;
		CellFeed &out = feed->cells[feed->cell_count++];

		out.role = cell.role;
		out.is_float = cell.argument != nullptr && exprType((Node *) cell.argument) == FLOAT8OID;
		out.same_argument = before != nullptr && cell.argument != nullptr &&
		                    equal(before->argument, cell.argument) &&
		                    equal(before->filter, cell.filter);
		out.filter = compile(translation, cell.filter);
		out.argument = compile(translation, cell.argument);
		before = &cell;
	}
}

static void
compile_left(Feed *feed, const Definition *d, int number, const Translation *translation)
{
	const Block &block = d->blocks[number];
	ListCell *cell;
	int group = 0;

	feed->where = compile_qual(translation, block.where);
	feed->group_types = group_keys(d, block.window, 0, &feed->group_count);
	feed->groups =
	    static_cast<ExprState **>(palloc(sizeof(ExprState *) * Max(feed->group_count, 1)));
	if (block.window != nullptr)
		feed->groups[group++] = compile(translation, window_bucket(block.window));
	foreach (cell, d->group_exprs)
		feed->groups[group++] = compile(translation, (Expr *) lfirst(cell));

	compile_cells(feed, d, block, kNoSide, translation);
	feed->cells_sums = copy_sums(d->cell_is_sum, d->cell_count);
	if (block.window != nullptr)
	{
		feed->cells_sums = sums_of_part(d, block.window->part);
		feed->cells_part = block.window->part;
		feed->first_cell = 0;
		feed->cells_of_key = block.cell_count;
	}
	feed->exists_part = block.exists_part;
	if (block.exists_part >= 0)
	{
		feed->exists_sums = sums_of_part(d, block.exists_part);
		feed->anti = block.anti;
		feed->join_type = d->parts[block.exists_part].keys[0];
		feed->join_key = compile(translation, block.left_key);
	}

	feed->values = static_cast<ValueFeed *>(palloc0(sizeof(ValueFeed) * Max(d->part_count, 1)));
	for (int i = 0; i < d->part_count; ++i)
	{
		const Part &part = d->parts[i];

		if (part.block != number || !part.has_values())
			continue;
		ValueFeed &value = feed->values[feed->value_count++];
		value.part = i;
		value.type = part.value_key();
		value.value = compile(translation, part.value);
		value.filter = compile(translation, part.filter);
	}
}

static void
compile_right(Feed *feed, const Definition *d, int number, const Translation *translation)
{
	const Block &block = d->blocks[number];

	feed->is_right = true;
	feed->where = compile_qual(translation, block.right_where);
	feed->exists_part = block.exists_part;
	feed->exists_sums = sums_of_part(d, block.exists_part);
	feed->cell_count = block.cell_count;
	feed->join_type = d->parts[block.exists_part].keys[0];
	feed->join_key = compile(translation, block.right_key);
}

static void
compile_side(Feed *feed, const Definition *d, int number, int side_number,
             const Translation *translation)
{
	const Block &block = d->blocks[number];
	const Side &side = block.sides[side_number];
	const Part &part = d->parts[side.part];
	ListCell *cell;
	int column = 0;

	feed->where = compile_qual(translation, side.where);
	feed->side_part = side.part;
	feed->side_sums = sums_of_part(d, side.part);
	feed->needed = bms_copy(side.needed);
	feed->never_null = bms_copy(side.never_null);
	feed->group_count = part.key_count;
	feed->group_types = copy_types(part.keys, part.key_count);
	feed->groups = static_cast<ExprState **>(palloc(sizeof(ExprState *) * Max(part.key_count, 1)));
	foreach (cell, side.columns)
		feed->groups[column++] = compile(translation, (Expr *) lfirst(cell));

	compile_cells(feed, d, block, side_number, translation);
}

static Feed *
append_feed(Capture *capture, const Definition *d)
{
	Size size = sizeof(Feed) * (capture->feed_count + 1);

	capture->feeds = static_cast<Feed *>(
	    capture->feeds == nullptr ? palloc(size) : repalloc(capture->feeds, size));
	Feed *feed = &capture->feeds[capture->feed_count++];
	*feed = Feed{};
	feed->statistic = d->row.id;
	feed->name = get_rel_name(d->row.relation);
	feed->exists_part = -1;
	feed->side_part = -1;
	feed->cells_part = kTotals;
	return feed;
}

/* Columns of the root that a definition reads on one table. */
static void
note_used(Bitmapset **used, const Translation *translation, Node *node)
{
	Bitmapset *found = nullptr;
	int column = -1;

	pull_varattnos((Node *) translate(translation, (Expr *) node), 1, &found);
	while ((column = bms_next_member(found, column)) >= 0)
		*used = bms_add_member(*used, column + FirstLowInvalidHeapAttributeNumber);
}

static void
note_used_by_block(Bitmapset **used, const Translation *translation, const Definition *d,
                   int number, bool right)
{
	const Block &block = d->blocks[number];

	if (right)
	{
		note_used(used, translation, (Node *) block.right_where);
		note_used(used, translation, (Node *) block.right_key);
		return;
	}
	note_used(used, translation, (Node *) block.where);
	note_used(used, translation, (Node *) d->group_exprs);
	note_used(used, translation, (Node *) block.left_key);
	if (block.window != nullptr)
		note_used(used, translation, (Node *) window_bucket(block.window));
	for (int i = 0; i < block.cell_count; ++i)
	{
		note_used(used, translation, (Node *) d->cells[block.first_cell + i].argument);
		note_used(used, translation, (Node *) d->cells[block.first_cell + i].filter);
	}
	for (int i = 0; i < d->part_count; ++i)
		if (d->parts[i].block == number)
		{
			note_used(used, translation, (Node *) d->parts[i].value);
			note_used(used, translation, (Node *) d->parts[i].filter);
		}
}

static void
note_used_by_side(Bitmapset **used, const Translation *translation, const Definition *d, int number,
                  int side)
{
	const Block &block = d->blocks[number];

	note_used(used, translation, (Node *) block.sides[side].where);
	note_used(used, translation, (Node *) block.sides[side].columns);
	for (int i = 0; i < block.cell_count; ++i)
	{
		const Cell &cell = d->cells[block.first_cell + i];

		if (cell.place.side != side)
			continue;
		note_used(used, translation, (Node *) cell.argument);
		note_used(used, translation, (Node *) cell.filter);
	}
}

static void
compile_statistic(Capture *capture, const Definition *d, const Translation *translation,
                  Bitmapset **used)
{
	for (int i = 0; i < d->block_count; ++i)
	{
		const Block &block = d->blocks[i];

		for (int side = 0; side < block.side_count; ++side)
			if (block.sides[side].source == capture->root)
			{
				compile_side(append_feed(capture, d), d, i, side, translation);
				note_used_by_side(used, translation, d, i, side);
			}
		if (block.side_count > 0)
			continue;
		if (block.source == capture->root)
		{
			compile_left(append_feed(capture, d), d, i, translation);
			note_used_by_block(used, translation, d, i, false);
		}
		if (block.exists_part >= 0 && block.right_source == capture->root)
		{
			compile_right(append_feed(capture, d), d, i, translation);
			note_used_by_block(used, translation, d, i, true);
		}
	}
}

static void
keep_used(Capture *capture, const Bitmapset *used)
{
	int column = -1;

	capture->used =
	    static_cast<AttrNumber *>(palloc(sizeof(AttrNumber) * Max(bms_num_members(used), 1)));
	while ((column = bms_next_member(used, column)) >= 0)
		capture->used[capture->used_count++] = (AttrNumber) column;
}

static Translation
translation_to(Relation relation, Oid root)
{
	Translation translation = {nullptr};

	if (root != RelationGetRelid(relation))
	{
		Relation whole = table_open(root, AccessShareLock);

		translation.map = map_columns(RelationGetDescr(whole), RelationGetDescr(relation));
		table_close(whole, NoLock);
	}
	return translation;
}

static void
compile_feeds(Capture *capture, Relation relation, int32 only)
{
	SourceRow source;
	ListCell *cell;
	Bitmapset *used = nullptr;

	if (!find_source_by_relation(capture->root, &source))
		return;
	capture->log = source.log;
	Translation translation = translation_to(relation, capture->root);
	foreach (cell, statistics_of_source(source.id))
	{
		if (only != kAllStatistics && only != lfirst_int(cell))
			continue;

		Definition *definition = definition_of(lfirst_int(cell));
		if (definition == nullptr)
			continue;
		compile_statistic(capture, definition, &translation, &used);
		++capture->statistic_count;
	}
	keep_used(capture, used);
}

/* Without feeds, in a context of its own. */
static Capture *
make_capture(Relation relation, Oid root)
{
	MemoryContext context =
	    AllocSetContextCreate(CurrentMemoryContext, "cache_ext capture", ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	auto *capture = static_cast<Capture *>(palloc0(sizeof(Capture)));

	capture->relation = RelationGetRelid(relation);
	capture->root = root;
	capture->context = context;
	capture->valid = true;
	capture->econtext = CreateStandaloneExprContext();
	/* With the values of columns that were added to rows without writing them. */
	TupleDesc desc = CreateTupleDescCopyConstr(RelationGetDescr(relation));
	capture->old_row = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	capture->new_row = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	initStringInfo(&capture->key);
	initStringInfo(&capture->row);
	MemoryContextSwitchTo(caller);
	return capture;
}

Capture *
compile_capture(Relation relation, Oid root, int32 statistic)
{
	Capture *capture = make_capture(relation, root);
	MemoryContext caller = MemoryContextSwitchTo(capture->context);

	compile_feeds(capture, relation, statistic);
	if (statistic == kAllStatistics)
		capture->watches = invalidation::compile_watches(
		    root, capture->old_row->tts_tupleDescriptor, capture->context);
	MemoryContextSwitchTo(caller);
	return capture;
}

Capture *
compile_window(Relation relation, Oid root, const Definition *definition, const Block *block)
{
	Capture *capture = make_capture(relation, root);
	MemoryContext caller = MemoryContextSwitchTo(capture->context);
	Translation translation = translation_to(relation, root);

	auto number = (int) (block - definition->blocks);
	Feed *feed = append_feed(capture, definition);

	if (block->side_count > 0)
		compile_side(feed, definition, number, block->window->side, &translation);
	else
		compile_left(feed, definition, number, &translation);
	MemoryContextSwitchTo(caller);
	return capture;
}

} /* namespace cache_ext::statistics */
