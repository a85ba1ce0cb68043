/*-------------------------------------------------------------------------
 *
 * from_where.cpp
 *		FROM and WHERE of a SELECT level: its source, or the sides of a join and
 *		the conditions about other tables; see level.hpp.
 *
 * A condition about another table is [NOT] EXISTS or [NOT] IN, tied to one
 * table of the level by equalities.  A block with one table and one such
 * condition on one key, which needs nothing but cells, keeps both tables in one
 * part; every other block with more than one table has a part per side.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/window.hpp"
#include "pg/tree.hpp"

extern "C" {
#include "access/htup_details.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
}

namespace cache_ext::statistics {

constexpr const char *kEqualityOnly =
    "Tables are tied by equalities, each between an expression of one and an expression of "
    "another.";

/* Equalities between two tables, as expressions over a row of each. */
struct Tie
{
	List *outer;
	List *inner;
};

/* A condition about another table. */
struct Condition
{
	SideRole role;
	bool is_not_in;
	Oid source;
	List *where;
	int parent;
	Tie tie;
};

/* What FROM and WHERE consist of. */
struct Taken
{
	List *sources;    /* Oid of each table in FROM */
	List **where;     /* of each table */
	List *equalities; /* OpExpr between two tables of FROM */
	List *conditions; /* Condition * */
	Window *window;
};

bool
is_correlated(Node *node)
{
	return contain_vars_of_level(node, 1);
}

/* ---- which table an expression looks at ---- */

/* -1: several tables. */
static int
find_side(const Level *level, Node *node)
{
	Bitmapset *varnos = pull_varnos(nullptr, node);
	ListCell *cell;

	if (bms_is_empty(varnos))
		return 0;
	if (bms_num_members(varnos) > 1)
		return -1;
	foreach (cell, level->tables)
		if (lfirst_int(cell) == bms_singleton_member(varnos))
			return foreach_current_index(cell);
	return -1;
}

int
side_of(const Level *level, Node *node, const char *what)
{
	int side = find_side(level, node);

	if (side < 0)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		                errmsg("a statistic cannot contain columns of several tables in %s", what),
		                errdetail("Each table of a join is kept by itself."),
		                errhint("Keep the value in a column of one of the tables.")));
	return side;
}

Expr *
side_expr(const Level *level, Node *node, int side, const char *what)
{
	if (node == nullptr)
		return nullptr;
	return source_expr(node, (Index) list_nth_int(level->tables, side), what);
}

/* ---- equalities ---- */

static bool
is_integer(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID;
}

static Expr *
as_bigint(Expr *expr)
{
	Oid type = getBaseType(exprType((Node *) expr));

	if (type == INT8OID)
		return expr;
	return (Expr *) makeFuncExpr(type == INT4OID ? F_INT8_INT4 : F_INT8_INT2, INT8OID,
	                             list_make1(expr), InvalidOid, InvalidOid, COERCE_EXPLICIT_CAST);
}

/* Adds an equality; both of its sides become keys of one type. */
static void
add_equality(Tie *tie, const OpExpr *op, Expr *outer, Expr *inner)
{
	Oid outer_type = getBaseType(exprType((Node *) outer));
	Oid inner_type = getBaseType(exprType((Node *) inner));
	bool same;

	if (!op_mergejoinable(op->opno, exprType((Node *) linitial(op->args))))
		refuse("a condition on several tables that is no equality", kEqualityOnly, kUsePlainView);
	if (outer_type != inner_type && is_integer(outer_type) && is_integer(inner_type))
	{
		same = true;
		outer = as_bigint(outer);
		inner = as_bigint(inner);
	}
	else
	{
		KeyType key = key_of(inner, "an equality between tables");

		same = op->opno == key.equality && outer_type == key.type &&
		       op->inputcollid == key.collation && exprCollation((Node *) outer) == key.collation;
	}
	if (!same)
		ereport(
		    ERROR,
		    (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		     errmsg("a statistic cannot contain operator %s between %s and %s of two tables",
		            get_opname(op->opno), format_type_be(outer_type), format_type_be(inner_type)),
		     errdetail("Both sides are kept by one key, so they need one type and its "
		               "own equality."),
		     errhint("Cast one side to the type of the other.")));
	tie->outer = lappend(tie->outer, outer);
	tie->inner = lappend(tie->inner, inner);
}

/* ---- conditions about other tables ---- */

[[noreturn]] static void
refuse_condition(const char *construct, const char *detail)
{
	refuse(construct, detail, kUsePlainView);
}

static Node *
replace_parameters(Node *node, Query *query)
{
	if (node == nullptr)
		return nullptr;
	if (IsA(node, Param) && ((Param *) node)->paramkind == PARAM_SUBLINK)
	{
		int column = ((Param *) node)->paramid;

		return (Node *) copyObjectImpl(
		    list_nth_node(TargetEntry, query->targetList, column - 1)->expr);
	}
	return pg::mutate_children<Query>(node, replace_parameters, query);
}

static void
note_parent(Condition *condition, int side)
{
	if (side < 0 || (condition->parent >= 0 && side != condition->parent))
		refuse_condition("EXISTS tied to several tables",
		                 "A condition about another table may use one table of FROM.");
	condition->parent = side;
}

/* The equalities of x IN (SELECT y ...): they stand outside the subquery. */
static void
take_in(const Level *level, SubLink *link, Index varno, Condition *condition)
{
	auto *query = castNode(Query, link->subselect);
	ListCell *cell;

	foreach (cell, make_ands_implicit((Expr *) copyObjectImpl(link->testexpr)))
	{
		auto *op = (OpExpr *) lfirst(cell);

		if (!IsA(op, OpExpr) || list_length(op->args) != 2)
			refuse_condition("this comparison with a subquery", kEqualityOnly);

		auto *outer = (Node *) linitial(op->args);
		Node *inner = replace_parameters((Node *) lsecond(op->args), query);

		if (is_correlated(inner))
			refuse_condition("a column of the outer table in the select list of IN", kEqualityOnly);
		note_parent(condition, find_side(level, outer));
		add_equality(&condition->tie, op, side_expr(level, outer, condition->parent, "IN"),
		             source_expr(inner, varno, "IN"));
	}
}

/* The conditions in a subquery's WHERE: equalities with the outer row, the rest is its own. */
static void
take_subquery_where(const Level *level, Query *query, Index varno, Condition *condition)
{
	ListCell *cell;

	foreach (cell, make_ands_implicit((Expr *) copyObjectImpl(query->jointree->quals)))
	{
		auto *qual = (Node *) lfirst(cell);
		auto *op = (OpExpr *) qual;

		if (!is_correlated(qual))
		{
			condition->where =
			    lappend(condition->where, source_expr(qual, varno, "the WHERE of EXISTS"));
			continue;
		}
		if (!IsA(qual, OpExpr) || list_length(op->args) != 2)
			refuse_condition("EXISTS tied to its outer row by anything but equalities",
			                 kEqualityOnly);

		bool first_is_outer = is_correlated((Node *) linitial(op->args));
		auto *outer = (Node *) list_nth(op->args, first_is_outer ? 0 : 1);
		auto *inner = (Node *) list_nth(op->args, first_is_outer ? 1 : 0);

		if (is_correlated(inner) || contain_vars_of_level(outer, 0))
			refuse_condition("EXISTS tied to its outer row by anything but equalities",
			                 kEqualityOnly);
		IncrementVarSublevelsUp(outer, -1, 1);
		note_parent(condition, find_side(level, outer));
		add_equality(&condition->tie, op, side_expr(level, outer, condition->parent, "EXISTS"),
		             source_expr(inner, varno, "EXISTS"));
	}
}

/* Can the expression never be NULL where the conditions hold? */
static bool
is_never_null(Expr *expr, Oid relation, List *where)
{
	ListCell *cell;

	if (IsA(expr, FuncExpr) &&
	    (((FuncExpr *) expr)->funcid == F_INT8_INT4 || ((FuncExpr *) expr)->funcid == F_INT8_INT2))
		expr = (Expr *) linitial(((FuncExpr *) expr)->args); /* see as_bigint() */
	foreach (cell, where)
	{
		auto *test = (NullTest *) lfirst(cell);

		if (IsA(test, NullTest) && test->nulltesttype == IS_NOT_NULL && equal(test->arg, expr))
			return true;
	}
	if (!IsA(expr, Var))
		return false;

	HeapTuple tuple = SearchSysCache2(ATTNUM, ObjectIdGetDatum(relation),
	                                  Int16GetDatum(((Var *) expr)->varattno));
	if (!HeapTupleIsValid(tuple))
		return false;
	bool not_null = reinterpret_cast<Form_pg_attribute>(GETSTRUCT(tuple))->attnotnull;
	ReleaseSysCache(tuple);
	return not_null;
}

/* NOT IN is NOT EXISTS where no NULL can come; a NULL would change what it means for every row. */
static void
check_not_in(const Taken *taken, const Condition *condition)
{
	ListCell *outer;
	ListCell *inner;

	forboth(
	    outer, condition->tie.outer, inner,
	    condition->tie.inner) if (!is_never_null((Expr *) lfirst(outer),
	                                             list_nth_oid(taken->sources, condition->parent),
	                                             taken->where[condition->parent]) ||
	                              !is_never_null((Expr *) lfirst(inner), condition->source,
	                                             condition->where))
	    refuse("NOT IN with values that may be NULL",
	           "A single NULL among them would change the answer for every row.",
	           "Write NOT EXISTS, or NOT IN between columns that are NOT NULL or tested with IS "
	           "NOT NULL.");
}

/* Whether there are rows does not depend on their order, on duplicates, or on a limit above zero.
 */
static void
drop_what_does_not_matter(Query *query, bool is_exists)
{
	auto *limit = (Const *) eval_const_expressions(nullptr, query->limitCount);

	if (is_exists && limit != nullptr && IsA(limit, Const) &&
	    (limit->constisnull || DatumGetInt64(limit->constvalue) > 0))
		query->limitCount = nullptr;
	if (query->limitCount != nullptr || query->limitOffset != nullptr)
		return;
	query->sortClause = NIL;
	query->distinctClause = NIL;
}

static Condition *
take_condition(const Level *level, SubLink *link, bool anti)
{
	auto *condition = static_cast<Condition *>(palloc0(sizeof(Condition)));
	auto *query = castNode(Query, link->subselect);

	drop_what_does_not_matter(query, link->subLinkType == EXISTS_SUBLINK);
	refuse_clauses(query);
	if (query->hasAggs || query->groupClause != NIL || query->havingQual != nullptr)
		refuse_condition("EXISTS or IN over an aggregate", "It must ask for rows of a table.");
	if (list_length(query->jointree->fromlist) != 1 ||
	    !IsA(linitial(query->jointree->fromlist), RangeTblRef))
		refuse_condition("a join in the subquery of EXISTS or IN",
		                 "A condition is about one other table.");

	auto varno = (Index) linitial_node(RangeTblRef, query->jointree->fromlist)->rtindex;

	condition->role = anti ? SideRole::kNotExists : SideRole::kExists;
	condition->source = source_table(level->definition, query, varno);
	condition->parent = -1;
	if (link->subLinkType == ANY_SUBLINK)
	{
		take_in(level, link, varno, condition);
		condition->is_not_in = anti;
	}
	take_subquery_where(level, query, varno, condition);
	if (condition->tie.outer == NIL)
		refuse_condition("EXISTS without an equality to its outer row", kEqualityOnly);
	return condition;
}

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
		refuse("more than 32 keys, groups and distinct values of one table",
		       "They are kept by one index.", "Keep several statistics.");
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
	return !condition->is_not_in && list_length(condition->tie.inner) == 1 &&
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
