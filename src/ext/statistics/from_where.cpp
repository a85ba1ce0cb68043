/*-------------------------------------------------------------------------
 *
 * from_where.cpp
 *		FROM and WHERE of a SELECT level: its source, or the sides of a join and
 *		the conditions about other tables; see from_where.hpp.
 *
 * A condition about another table is [NOT] EXISTS or [NOT] IN, tied to one
 * table of the level by equalities.  A block with one table and one such
 * condition on one key, which needs nothing but cells, keeps both tables in one
 * part; every other block with more than one table has a part per side.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/from_where.hpp"
#include "pg/tree.hpp"

extern "C" {
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "utils/lsyscache.h"
}

namespace cache_ext::statistics {

/* ---- taking FROM and WHERE apart ---- */

static List *
take_from(Level *level, Node *item, List *quals)
{
	ListCell *cell;

	if (IsA(item, RangeTblRef))
		level->tables = lappend_int(level->tables, ((RangeTblRef *) item)->rtindex);
	else if (IsA(item, JoinExpr))
	{
		auto *join = (JoinExpr *) item;

		if (join->jointype != JOIN_INNER)
			refuse("an outer join", "Its rows without a partner come and go with other rows.",
			       "Use an inner join; NOT EXISTS in WHERE selects the rows without a partner.");
		quals = take_from(level, join->larg, quals);
		quals = take_from(level, join->rarg, quals);
		quals = list_concat(quals, make_ands_implicit((Expr *) copyObjectImpl(join->quals)));
	}
	else
	{
		auto *from = castNode(FromExpr, item);

		foreach (cell, from->fromlist)
			quals = take_from(level, (Node *) lfirst(cell), quals);
		quals = list_concat(quals, make_ands_implicit((Expr *) copyObjectImpl(from->quals)));
	}
	return quals;
}

static void
take_qual(Level *level, Taken *taken, Node *qual)
{
	bool anti = is_notclause(qual);
	Node *bare = anti ? (Node *) get_notclausearg((Expr *) qual) : qual;

	if (IsA(bare, SubLink) && (((SubLink *) bare)->subLinkType == EXISTS_SUBLINK ||
	                           ((SubLink *) bare)->subLinkType == ANY_SUBLINK))
	{
		taken->conditions =
		    lappend(taken->conditions, take_condition(level, (SubLink *) bare, anti));
		return;
	}

	if (take_window_condition(level, qual, &taken->window))
		return;

	int side = find_side(level, qual);
	if (side >= 0)
		taken->where[side] = lappend(taken->where[side], side_expr(level, qual, side, "WHERE"));
	else if (IsA(qual, OpExpr) && list_length(((OpExpr *) qual)->args) == 2 &&
	         find_side(level, (Node *) linitial(((OpExpr *) qual)->args)) >= 0 &&
	         find_side(level, (Node *) lsecond(((OpExpr *) qual)->args)) >= 0)
		taken->equalities = lappend(taken->equalities, qual);
	else
		refuse("a condition on several tables that is no equality", kEqualityOnly, kUsePlainView);
}

/* ---- sides ---- */

Place
side_column(Level *level, int side, Expr *expr)
{
	Side &kept = level->here()->sides[side];
	ListCell *cell;

	foreach (cell, kept.columns)
		if (equal(lfirst(cell), expr))
			return {side, foreach_current_index(cell)};
	if (list_length(kept.columns) == INDEX_MAX_KEYS)
		refuse_many_keys();
	kept.columns = lappend(kept.columns, expr);
	return {side, list_length(kept.columns) - 1};
}

static int
append_side(Level *level, SideRole role, Oid source, List *where)
{
	Definition *d = level->definition;
	Block *block = level->here();
	Part *part = append(d->parts, d->part_count);
	Side *side = append(block->sides, block->side_count);

	part->kind = PartKind::kSide;
	part->block = level->block;
	part->side = block->side_count - 1;
	side->role = role;
	side->source = source;
	side->where = where;
	side->part = d->part_count - 1;
	side->parent = -1;
	return block->side_count - 1;
}

static void
tie_side(Level *level, int child, int parent, const Tie &tie, bool is_not_in)
{
	int count = list_length(tie.inner);
	auto *own = static_cast<int *>(palloc(sizeof(int) * count));
	auto *others = static_cast<int *>(palloc(sizeof(int) * count));

	if (list_length(list_union(NIL, tie.inner)) < count)
		refuse("an expression tied to several expressions of one table", kEqualityOnly,
		       "Compare the several expressions with one another in WHERE.");
	for (int i = 0; i < count; ++i)
	{
		own[i] = side_column(level, child, (Expr *) list_nth(tie.inner, i)).number;
		others[i] = side_column(level, parent, (Expr *) list_nth(tie.outer, i)).number;
	}

	Side &side = level->here()->sides[child];
	Side &above = level->here()->sides[parent];
	for (int i = 0; i < count; ++i)
	{
		if (is_not_in)
		{
			side.never_null = bms_add_member(side.never_null, own[i]);
			above.never_null = bms_add_member(above.never_null, others[i]);
		}
		side.needed = bms_add_member(side.needed, own[i]);
		if (side.role != SideRole::kNotExists)
			above.needed = bms_add_member(above.needed, others[i]);
	}
	side.parent = parent;
	side.tie_count = count;
	side.own_tie = own;
	side.parent_tie = others;
}

/* The equalities between a table that has its place in the tree and one that gets it now. */
static Tie
equalities_between(const Level *level, const Taken *taken, int parent, int child)
{
	Tie tie = {NIL, NIL};
	ListCell *cell;

	foreach (cell, taken->equalities)
	{
		auto *op = lfirst_node(OpExpr, cell);
		auto *first = (Node *) linitial(op->args);
		auto *second = (Node *) lsecond(op->args);
		int first_side = find_side(level, first);
		int second_side = find_side(level, second);

		if (first_side == parent && second_side == child)
			add_equality(&tie, op, side_expr(level, first, parent, "a join"),
			             side_expr(level, second, child, "a join"));
		else if (first_side == child && second_side == parent)
			add_equality(&tie, op, side_expr(level, second, parent, "a join"),
			             side_expr(level, first, child, "a join"));
	}
	return tie;
}

/* Ties the tables of FROM into a tree, starting from the first. */
static void
tie_tables(Level *level, const Taken *taken)
{
	int tables = list_length(level->tables);
	Bitmapset *placed = bms_make_singleton(0);
	int used = 0;

	while (bms_num_members(placed) < tables)
	{
		bool grew = false;

		for (int child = 1; child < tables; ++child)
			for (int parent = 0; parent < tables && !bms_is_member(child, placed); ++parent)
			{
				if (!bms_is_member(parent, placed))
					continue;
				Tie tie = equalities_between(level, taken, parent, child);
				if (tie.inner == NIL)
					continue;
				tie_side(level, child, parent, tie, false);
				placed = bms_add_member(placed, child);
				used += list_length(tie.inner);
				grew = true;
			}
		if (!grew)
			refuse("a join without an equality between its tables", kEqualityOnly,
			       "Add the equality, or keep a statistic per table.");
	}
	if (used < list_length(taken->equalities))
		refuse("a join in a circle", "Each further table may be tied to one table before it.",
		       kUsePlainView);
}

static void
make_sides(Level *level, const Taken *taken)
{
	ListCell *cell;

	foreach (cell, taken->sources)
		(void) append_side(level, SideRole::kJoined, lfirst_oid(cell),
		                   taken->where[foreach_current_index(cell)]);
	tie_tables(level, taken);
	foreach (cell, taken->conditions)
	{
		auto *condition = static_cast<Condition *>(lfirst(cell));
		int side = append_side(level, condition->role, condition->source, condition->where);

		tie_side(level, side, condition->parent, condition->tie, condition->is_not_in);
	}
}

/* ---- one condition on one key ---- */

/* Does an aggregate need more than cells: extremes, distinct values, numerics of any scale? */
static bool
needs_values(Node *node, void *)
{
	if (node == nullptr)
		return false;
	if (!IsA(node, Aggref))
		return pg::walk_children<void>(node, needs_values, nullptr);

	auto *aggregate = (Aggref *) node;
	char *name = get_func_name(aggregate->aggfnoid);
	if (aggregate->aggdistinct != NIL || strcmp(name, "min") == 0 || strcmp(name, "max") == 0)
		return true;
	if (aggregate->args == NIL || strcmp(name, "count") == 0)
		return false;

	auto *argument = (Node *) linitial_node(TargetEntry, aggregate->args)->expr;
	int32 typmod = exprTypmod(argument);
	return getBaseTypeAndTypmod(exprType(argument), &typmod) == NUMERICOID &&
	       typmod < (int32) VARHDRSZ;
}

static void
keep_in_one_part(Level *level, const Taken *taken, const Condition *condition)
{
	Definition *d = level->definition;
	Block *block = level->here();

	block->where = taken->where[0];
	block->anti = condition->role == SideRole::kNotExists;
	block->left_key = (Expr *) linitial(condition->tie.outer);
	block->right_source = condition->source;
	block->right_where = condition->where;
	block->right_key = (Expr *) linitial(condition->tie.inner);

	Part *part = append(d->parts, d->part_count);
	part->kind = PartKind::kExists;
	part->block = level->block;
	part->key_count = 1;
	part->keys = static_cast<KeyType *>(palloc(sizeof(KeyType)));
	part->keys[0] = key_of(block->right_key, "EXISTS");
	block->exists_part = d->part_count - 1;
}

static bool
fits_one_part(const Level *level, const Taken *taken)
{
	if (list_length(taken->sources) != 1 || list_length(taken->conditions) != 1 || level->grouped)
		return false;

	auto *condition = static_cast<Condition *>(linitial(taken->conditions));
	return taken->window == nullptr && !condition->is_not_in &&
	       list_length(condition->tie.inner) == 1 &&
	       !needs_values((Node *) level->query->targetList, nullptr) &&
	       !needs_values(level->query->havingQual, nullptr);
}

/* BETWEEN is an AND within the AND. */
static List *
flat_conjunction(List *quals)
{
	List *flat = NIL;
	ListCell *cell;

	foreach (cell, quals)
	{
		auto *qual = (Node *) lfirst(cell);

		if (is_andclause(qual))
			flat = list_concat(flat, flat_conjunction(((BoolExpr *) qual)->args));
		else
			flat = lappend(flat, qual);
	}
	return flat;
}

void
take_from_and_where(Level *level)
{
	Taken taken = {};
	List *quals = take_from(level, (Node *) level->query->jointree, NIL);
	ListCell *cell;

	foreach (cell, level->tables)
		taken.sources = lappend_oid(
		    taken.sources, source_table(level->definition, level->query, (Index) lfirst_int(cell)));
	taken.where = static_cast<List **>(palloc0(sizeof(List *) * list_length(taken.sources)));
	foreach (cell, flat_conjunction(quals))
		take_qual(level, &taken, (Node *) lfirst(cell));
	if (level->definition->is_new)
		foreach (cell, taken.conditions)
			if (static_cast<Condition *>(lfirst(cell))->is_not_in)
				check_not_in(&taken, static_cast<Condition *>(lfirst(cell)));

	Block *block = level->here();
	block->source = linitial_oid(taken.sources);
	if (list_length(taken.sources) == 1 && taken.conditions == NIL)
		block->where = taken.where[0];
	else if (fits_one_part(level, &taken))
		keep_in_one_part(level, &taken, static_cast<Condition *>(linitial(taken.conditions)));
	else
		make_sides(level, &taken);
	if (taken.window != nullptr)
		finish_window(level, taken.window);
}

} /* namespace cache_ext::statistics */
