/*-------------------------------------------------------------------------
 *
 * feed.cpp
 *		Compiling and evaluating what a row counts for; see feed.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include <algorithm>

#include "ext/statistics/feed.hpp"
#include "ext/statistics/log.hpp"
#include "ext/statistics/summand.hpp"
#include "ext/statistics/window.hpp"

extern "C" {
#include "access/attmap.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteManip.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
}

namespace cache_ext::statistics {

struct CellFeed
{
	CellRole role;
	bool is_float;
	bool same_argument; /* as the cell before */
	ExprState *argument;
	ExprState *filter;
};

struct ValueFeed
{
	int part;
	KeyType type;
	ExprState *value;
	ExprState *filter;
};

/* One side of one block. */
struct Feed
{
	int32 statistic;
	char *name; /* for error contexts */
	ExprState *where;
	int side_part; /* -1: not a side; else its columns are what follows */
	const Bitmapset *needed;
	const Bitmapset *never_null;
	bool is_right; /* the side that EXISTS looks for */

	int window_part; /* -1: the block is no window */
	KeyType bucket_type;
	ExprState *bucket;

	int group_count;
	KeyType *group_types;
	ExprState **groups;

	int cell_count; /* of this block */
	CellFeed *cells;
	int first_cell;
	int totals_cells; /* of the statistic */

	int exists_part; /* -1: the block has no EXISTS */
	bool anti;
	KeyType join_type;
	ExprState *join_key;

	int value_count;
	ValueFeed *values;
};

/* ---- compiling ---- */

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

constexpr int kNoSide = -1;

/* The cells of a block, or those of one side beyond its rows. */
static void
compile_cells(Feed *feed, const Definition *d, const Block &block, int side,
              const Translation *translation)
{
	const Cell *before = nullptr;

	feed->first_cell = block.first_cell;
	feed->totals_cells = d->cell_count;
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
	feed->group_count = d->group_count;
	feed->group_types = copy_types(d->groups, d->group_count);
	feed->groups = static_cast<ExprState **>(palloc(sizeof(ExprState *) * Max(d->group_count, 1)));
	foreach (cell, d->group_exprs)
		feed->groups[group++] = compile(translation, (Expr *) lfirst(cell));

	if (block.window != nullptr)
	{
		feed->window_part = block.window->part;
		feed->bucket_type = d->parts[block.window->part].keys[0];
		feed->bucket = compile(translation, window_bucket(block.window));
	}
	compile_cells(feed, d, block, kNoSide, translation);
	feed->exists_part = block.exists_part;
	if (block.exists_part >= 0)
	{
		feed->anti = block.anti;
		feed->join_type = d->parts[block.exists_part].keys[0];
		feed->join_key = compile(translation, block.left_key);
	}

	feed->values = static_cast<ValueFeed *>(palloc0(sizeof(ValueFeed) * Max(d->part_count, 1)));
	for (int i = 0; i < d->part_count; ++i)
	{
		const Part &part = d->parts[i];

		if (part.block != number || part.kind != PartKind::kValues)
			continue;
		ValueFeed &value = feed->values[feed->value_count++];
		value.part = i;
		value.type = part.keys[part.key_count - 1];
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
	feed->window_part = -1;
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
	TupleDesc desc = CreateTupleDescCopy(RelationGetDescr(relation));
	capture->old_row = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	capture->new_row = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	initStringInfo(&capture->key);
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
compile_block(Relation relation, Oid root, const Definition *definition, const Block *block)
{
	Capture *capture = make_capture(relation, root);
	MemoryContext caller = MemoryContextSwitchTo(capture->context);
	Translation translation = translation_to(relation, root);

	compile_left(append_feed(capture, definition), definition, (int) (block - definition->blocks),
	             &translation);
	MemoryContextSwitchTo(caller);
	return capture;
}

/* ---- evaluating ---- */

static bool
passes(ExprState *condition, ExprContext *econtext)
{
	bool null;

	if (condition == nullptr)
		return true;
	Datum value = ExecEvalExprSwitchContext(condition, econtext, &null);
	return !null && DatumGetBool(value);
}

/* Adds a finite value to a sum that lives in the current context, freeing what it replaces. */
static void
add_to_sum(const CellFeed &cell, int64 *sum, Datum value, int sign)
{
	int64 summand = exact_numeric(cell.is_float, value);

	if (cell.role == CellRole::kSquares)
	{
		int64 square = square_of(summand);

		pfree(DatumGetPointer((Datum) summand));
		summand = square;
	}

	int64 change = sign > 0 ? summand : negate_sum(summand);
	int64 before = *sum;

	*sum = add_sums(before, change);
	if (change != summand)
		pfree(DatumGetPointer((Datum) summand));
	if (before != 0)
	{
		pfree(DatumGetPointer((Datum) before));
		pfree(DatumGetPointer((Datum) change));
	}
}

/* What a value that is not NULL adds to a cell. */
static void
feed_summand(const CellFeed &cell, int64 *out, Datum value, int sign)
{
	Summand kind = classify(cell.is_float, value);

	switch (cell.role)
	{
	case CellRole::kNaN:
		*out += kind == Summand::kNaN ? sign : 0;
		break;
	case CellRole::kPositive:
		*out += kind == Summand::kPositive ? sign : 0;
		break;
	case CellRole::kNegative:
		*out += kind == Summand::kNegative ? sign : 0;
		break;
	default:
		if (kind == Summand::kFinite)
			add_to_sum(cell, out, value, sign);
	}
}

static void
feed_cells(const Feed *feed, ExprContext *econtext, int64 *cells, int sign)
{
	Datum value = 0;
	bool null = true;
	bool passed = true;

	for (int i = 0; i < feed->cell_count; ++i)
	{
		const CellFeed &cell = feed->cells[i];

		if (!cell.same_argument)
		{
			passed = passes(cell.filter, econtext);
			if (passed && cell.argument != nullptr)
				value = ExecEvalExprSwitchContext(cell.argument, econtext, &null);
		}
		if (!passed)
			continue;
		if (cell.role == CellRole::kRows)
			cells[i] += sign;
		else if (cell.role == CellRole::kNonNull)
			cells[i] += null ? 0 : sign;
		else if (!null)
			feed_summand(cell, &cells[i], value, sign);
	}
}

static std::string_view
key_bytes(Capture *capture, const Feed *feed)
{
	check_key_size(&capture->key, feed->statistic);
	return {capture->key.data, (size_t) capture->key.len};
}

static int64 *
join_cells(Capture *capture, const Feed *feed, Delta *delta, Datum key)
{
	int bitmap;

	begin_key(&capture->key, feed->statistic, feed->exists_part);
	begin_key_values(&capture->key, 1, &bitmap);
	add_key_value(&capture->key, feed->join_type, bitmap, 0, key, false);
	return delta->cells(key_bytes(capture, feed), (size_t) feed->cell_count + 1);
}

struct GroupValues
{
	Datum values[INDEX_MAX_KEYS];
	bool nulls[INDEX_MAX_KEYS];
};

static void
add_groups(Capture *capture, const Feed *feed, int bitmap, const GroupValues &groups)
{
	for (int i = 0; i < feed->group_count; ++i)
		add_key_value(&capture->key, feed->group_types[i], bitmap, i, groups.values[i],
		              groups.nulls[i]);
}

static int64 *
totals_cells(Capture *capture, const Feed *feed, Delta *delta, const GroupValues &groups)
{
	int bitmap;

	begin_key(&capture->key, feed->statistic, kTotals);
	begin_key_values(&capture->key, feed->group_count, &bitmap);
	add_groups(capture, feed, bitmap, groups);
	return delta->cells(key_bytes(capture, feed), (size_t) feed->totals_cells) + feed->first_cell;
}

static void
feed_values(Capture *capture, const Feed *feed, Delta *delta, const GroupValues &groups, int sign)
{
	for (int i = 0; i < feed->value_count; ++i)
	{
		const ValueFeed &part = feed->values[i];
		bool null;
		int bitmap;

		if (!passes(part.filter, capture->econtext))
			continue;
		Datum value = ExecEvalExprSwitchContext(part.value, capture->econtext, &null);
		if (null)
			continue;
		begin_key(&capture->key, feed->statistic, part.part);
		begin_key_values(&capture->key, feed->group_count + 1, &bitmap);
		add_groups(capture, feed, bitmap, groups);
		add_key_value(&capture->key, part.type, bitmap, feed->group_count, value, false);
		*delta->cells(key_bytes(capture, feed), 1) += sign;
	}
}

/* NOT IN was accepted because its columns were NOT NULL; see from_where.cpp. */
[[noreturn]] static void
report_null_in_not_in()
{
	ereport(ERROR, (errcode(ERRCODE_NOT_NULL_VIOLATION),
	                errmsg("a statistic with NOT IN cannot take a null value"),
	                errdetail("Its columns were NOT NULL when it was created."),
	                errhint("Drop the statistic, and create it with NOT EXISTS.")));
	pg_unreachable();
}

/* A row of one of several tables: an entry of the side, with its rows and cells. */
static void
feed_side(Capture *capture, const Feed *feed, Delta *delta, int sign)
{
	GroupValues columns;
	int bitmap;

	for (int i = 0; i < feed->group_count; ++i)
	{
		columns.values[i] =
		    ExecEvalExprSwitchContext(feed->groups[i], capture->econtext, &columns.nulls[i]);
		if (columns.nulls[i] && bms_is_member(i, feed->never_null))
			report_null_in_not_in();
		if (columns.nulls[i] && bms_is_member(i, feed->needed))
			return; /* NULL equals nothing: the row meets no other */
	}
	begin_key(&capture->key, feed->statistic, feed->side_part);
	begin_key_values(&capture->key, feed->group_count, &bitmap);
	add_groups(capture, feed, bitmap, columns);

	int64 *cells = delta->cells(key_bytes(capture, feed), (size_t) feed->cell_count + 1);
	cells[0] += sign;
	feed_cells(feed, capture->econtext, cells + 1, sign);
}

static void
feed_bucket(Capture *capture, const Feed *feed, Delta *delta, const GroupValues &groups, int sign)
{
	bool null;
	int bitmap;
	Datum bucket = ExecEvalExprSwitchContext(feed->bucket, capture->econtext, &null);

	if (null)
		return; /* NULL is in no window */
	begin_key(&capture->key, feed->statistic, feed->window_part);
	begin_key_values(&capture->key, feed->group_count + 1, &bitmap);
	add_key_value(&capture->key, feed->bucket_type, bitmap, 0, bucket, false);
	for (int i = 0; i < feed->group_count; ++i)
		add_key_value(&capture->key, feed->group_types[i], bitmap, i + 1, groups.values[i],
		              groups.nulls[i]);
	feed_cells(feed, capture->econtext,
	           delta->cells(key_bytes(capture, feed), (size_t) feed->cell_count), sign);
}

static void
feed_one(Capture *capture, const Feed *feed, Delta *delta, int sign)
{
	ExprContext *econtext = capture->econtext;
	GroupValues groups;
	bool null;

	if (feed->where != nullptr && !ExecQual(feed->where, econtext))
		return;

	if (feed->side_part >= 0)
	{
		feed_side(capture, feed, delta, sign);
		return;
	}
	if (feed->is_right)
	{
		Datum key = ExecEvalExprSwitchContext(feed->join_key, econtext, &null);

		if (!null)
			join_cells(capture, feed, delta, key)[feed->cell_count] += sign;
		return;
	}

	for (int i = 0; i < feed->group_count; ++i)
		groups.values[i] = ExecEvalExprSwitchContext(feed->groups[i], econtext, &groups.nulls[i]);

	if (feed->window_part >= 0)
	{
		feed_bucket(capture, feed, delta, groups, sign);
		return;
	}
	if (feed->exists_part >= 0)
	{
		Datum key = ExecEvalExprSwitchContext(feed->join_key, econtext, &null);

		if (!null)
		{
			feed_cells(feed, econtext, join_cells(capture, feed, delta, key), sign);
			return;
		}
		if (!feed->anti)
			return; /* NULL equals nothing, so nothing exists for it */
	}
	if (feed->cell_count > 0)
		feed_cells(feed, econtext, totals_cells(capture, feed, delta, groups), sign);
	feed_values(capture, feed, delta, groups, sign);
}

static void
name_statistic(void *feed)
{
	errcontext("statistic \"%s\"", static_cast<const Feed *>(feed)->name);
}

void
feed_row(Capture *capture, Delta *delta, TupleTableSlot *row, int sign)
{
	ErrorContextCallback context = {error_context_stack, name_statistic, nullptr};

	error_context_stack = &context;
	capture->econtext->ecxt_scantuple = row;
	for (int i = 0; i < capture->feed_count; ++i)
	{
		context.arg = &capture->feeds[i];
		feed_one(capture, &capture->feeds[i], delta, sign);
	}
	error_context_stack = context.previous;
	ResetExprContext(capture->econtext);
}

static bool
used_columns_equal(const Capture *capture, TupleTableSlot *old_row, TupleTableSlot *new_row)
{
	for (int i = 0; i < capture->used_count; ++i)
	{
		AttrNumber column = capture->used[i];
		bool old_null;
		bool new_null;
		Datum old_value = slot_getattr(old_row, column, &old_null);
		Datum new_value = slot_getattr(new_row, column, &new_null);
		auto *attribute = TupleDescAttr(old_row->tts_tupleDescriptor, column - 1);

		if (old_null != new_null)
			return false;
		if (!old_null &&
		    !datum_image_eq(old_value, new_value, attribute->attbyval, attribute->attlen))
			return false;
	}
	return true;
}

void
feed_change(Capture *capture, Delta *delta, TupleTableSlot *old_row, TupleTableSlot *new_row)
{
	bool counts = capture->feed_count > 0;

	if (counts && old_row != nullptr && new_row != nullptr &&
	    used_columns_equal(capture, old_row, new_row))
		counts = false;
	if (counts && old_row != nullptr)
		feed_row(capture, delta, old_row, -1);
	if (counts && new_row != nullptr)
		feed_row(capture, delta, new_row, 1);
	if (capture->watches != nullptr)
		invalidation::watch_row(capture->watches, old_row, new_row);
}

bool
delta_is_zero(Delta *delta)
{
	bool zero = true;

	for_each_entry(delta, [&](int32, int, std::string_view, const int64 *cells, size_t count,
	                          const bool *is_sum) {
		zero = zero && cells_are_zero(cells, is_sum, (int) count);
	});
	return zero;
}

} /* namespace cache_ext::statistics */
