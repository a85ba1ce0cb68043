/*-------------------------------------------------------------------------
 *
 * conditions.cpp
 *		Equalities between tables, and conditions about other tables: [NOT] EXISTS
 *		and [NOT] IN; see from_where.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/from_where.hpp"
#include "pg/tree.hpp"

extern "C" {
#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
}

namespace cache_ext::statistics {

bool
is_correlated(Node *node)
{
	return contain_vars_of_level(node, 1);
}

/* ---- which table an expression looks at ---- */

int
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

void
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

void
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

/* A LIMIT that is there to be read: whatever would have to be run is the user's, and we may be a
 * worker. */
static bool
is_limit_above_zero(Node *limit)
{
	if (IsA(limit, FuncExpr) && ((FuncExpr *) limit)->funcid == F_INT8_INT4)
		limit = (Node *) linitial(((FuncExpr *) limit)->args);
	if (!IsA(limit, Const))
		return false;

	auto *constant = (Const *) limit;

	return constant->constisnull ||
	       (constant->consttype == INT4OID ? DatumGetInt32(constant->constvalue)
	                                       : DatumGetInt64(constant->constvalue)) > 0;
}

/* Whether there are rows does not depend on their order, on duplicates, or on a limit above zero.
 */
static void
drop_what_does_not_matter(Query *query, bool is_exists)
{
	if (is_exists && query->limitCount != nullptr && is_limit_above_zero(query->limitCount))
		query->limitCount = nullptr;
	if (query->limitCount != nullptr || query->limitOffset != nullptr)
		return;
	query->sortClause = NIL;
	query->distinctClause = NIL;
}

Condition *
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

} /* namespace cache_ext::statistics */
