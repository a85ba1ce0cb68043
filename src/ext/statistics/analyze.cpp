/*-------------------------------------------------------------------------
 *
 * analyze.cpp
 *		Taking a query apart, SELECT level by level.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/window.hpp"
#include "pg/tree.hpp"

extern "C" {
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/catalog.h"
#include "catalog/dependency.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "commands/extension.h"
#include "nodes/makefuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/typcache.h"
}

namespace cache_ext::statistics {

KeyType
key_of(Expr *expr, const char *what)
{
	return key_type(getBaseType(exprType((Node *) expr)), exprCollation((Node *) expr), what);
}

/* ---- the select list ---- */

static Expr *open_level(Definition *definition, Query *query, bool top);

static bool
is_last_change(Node *node)
{
	if (!IsA(node, FuncExpr))
		return false;

	auto *call = (FuncExpr *) node;
	char *name = get_func_name(call->funcid);
	return name != nullptr && strcmp(name, "statistics_last_change") == 0 &&
	       getExtensionOfObject(ProcedureRelationId, call->funcid) ==
	           get_extension_oid("cache_ext", true) &&
	       call->args == NIL; /* defaults are added when a query is planned */
}

/*
 * A result expression over (groups, aggregates): every group expression,
 * aggregate and scalar subquery becomes a column of that row.
 */
static Node *
over_raw_row(Node *node, Level *level)
{
	if (node == nullptr)
		return nullptr;
	if (is_last_change(node))
		return (Node *) makeVar(1, kLastChange, TIMESTAMPTZOID, -1, InvalidOid, 0);

	if (level->grouped)
	{
		int number = 0;
		ListCell *cell;

		foreach (cell, level->query->groupClause)
		{
			Node *group = get_sortgroupclause_expr(lfirst_node(SortGroupClause, cell),
			                                       level->query->targetList);

			++number;
			if (equal(node, group))
				return (Node *) makeVar(1, (AttrNumber) number, exprType(node), exprTypmod(node),
				                        exprCollation(node), 0);
		}
	}
	if (IsA(node, Aggref))
	{
		int number = aggregate_for(level, (Aggref *) node);

		return (Node *) makeVar(1, (AttrNumber) (level->definition->group_count + number + 1),
		                        exprType(node), exprTypmod(node), exprCollation(node), 0);
	}
	if (IsA(node, Var))
		refuse("a column that is not grouped",
		       "A result row must follow from its group and its aggregates.",
		       "Add the column to GROUP BY.");
	if (IsA(node, SubLink))
	{
		auto *link = (SubLink *) node;

		if (level->block >= 0 || link->subLinkType != EXPR_SUBLINK)
			refuse_subquery(node, "the select list");
		return (Node *) open_level(level->definition, castNode(Query, link->subselect), false);
	}
	return pg::mutate_children<Level>(node, over_raw_row, level);
}

static bool
mentions_last_change(Node *node, void *)
{
	if (node == nullptr)
		return false;
	if (IsA(node, Var))
		return ((Var *) node)->varattno == kLastChange;
	return pg::walk_children<void>(node, mentions_last_change, nullptr);
}

static Expr *
result_expr(Node *node, Level *level)
{
	Node *result = over_raw_row(node, level);

	/* The time of the last change may be shown in the reader's time zone. */
	if (mentions_last_change(result, nullptr) ? contain_volatile_functions(result)
	                                          : contain_mutable_functions(result))
		refuse("a function that is not immutable in its select list",
		       "The relation would change without a change to a row.", kUsePlainView);
	return (Expr *) result;
}

static void
prepare_groups(Level *level)
{
	Definition *d = level->definition;
	Query *query = level->query;
	ListCell *cell;

	d->group_count = list_length(query->groupClause);
	if (d->group_count > INDEX_MAX_KEYS)
		refuse_many_keys();
	d->groups = static_cast<KeyType *>(palloc0(sizeof(KeyType) * Max(d->group_count, 1)));

	d->group_places = static_cast<Place *>(palloc0(sizeof(Place) * Max(d->group_count, 1)));

	int number = 0;
	foreach (cell, query->groupClause)
	{
		auto *clause = lfirst_node(SortGroupClause, cell);
		Node *node = get_sortgroupclause_expr(clause, query->targetList);
		int side = side_of(level, node, "GROUP BY");
		Expr *expr = side_expr(level, node, side, "GROUP BY");

		d->groups[number] = key_of(expr, "GROUP BY");
		if (clause->eqop != d->groups[number].equality)
			refuse("GROUP BY with another equality than the type's own",
			       "Groups are kept by the type's default operator class.", kUsePlainView);
		d->group_exprs = lappend(d->group_exprs, expr);
		if (level->here()->side_count > 0)
			d->group_places[number] = side_column(level, side, expr);
		++number;
	}

	/* Parts, which begin with all groups. */
	d->group_spelling = static_cast<int *>(palloc(sizeof(int) * Max(d->group_count, 1)));
	for (int i = 0; i < d->group_count; ++i)
		d->group_spelling[i] =
		    spelling_for(level, d->group_places[i].side, (Expr *) list_nth(d->group_exprs, i));
}

/* Columns of a JOIN ... USING or of a join with an alias become columns of its tables. */
static void
flatten_joins(Query *query)
{
	bool has_joins = false;
	ListCell *cell;

	foreach (cell, query->rtable)
		has_joins = has_joins || lfirst_node(RangeTblEntry, cell)->rtekind == RTE_JOIN;
	if (!has_joins)
		return;
#if PG_VERSION_NUM >= 160000
	auto flatten = [&](Node *node) { return flatten_join_alias_vars(nullptr, query, node); };
#else
	auto flatten = [&](Node *node) { return flatten_join_alias_vars(query, node); };
#endif
	query->targetList = (List *) flatten((Node *) query->targetList);
	query->havingQual = flatten(query->havingQual);
	query->jointree = (FromExpr *) flatten((Node *) query->jointree);
}

/* Handles one SELECT level; returns its first result expression (a scalar subquery has one). */
static Expr *
open_level(Definition *definition, Query *query, bool top)
{
	refuse_clauses(query);
#if PG_VERSION_NUM >= 180000
	if (query->hasGroupRTE)
	{
		query->targetList =
		    (List *) flatten_group_exprs(nullptr, query, (Node *) query->targetList);
		query->havingQual = flatten_group_exprs(nullptr, query, query->havingQual);
	}
#endif
	flatten_joins(query);

	Level level = {definition, query, -1, NIL, query->groupClause != NIL};

	if (query->jointree->fromlist == NIL)
	{
		if (!top || query->jointree->quals != nullptr || query->hasAggs || level.grouped ||
		    query->havingQual != nullptr)
			refuse("a SELECT without FROM that is not a row of scalar subqueries",
			       "Each value must be a scalar subquery over one table or a constant.",
			       kUsePlainView);
	}
	else
	{
		if (!top && level.grouped)
			refuse("GROUP BY in a scalar subquery", "A scalar subquery has one row.",
			       kUsePlainView);
		if (!top && query->havingQual != nullptr)
			refuse("HAVING in a scalar subquery", "A scalar subquery has one row.", kUsePlainView);
		if (is_correlated((Node *) query->jointree) || is_correlated((Node *) query->targetList))
			refuse("a correlated scalar subquery", "Each subquery must stand on its own.",
			       kUsePlainView);
		if (!query->hasAggs && !level.grouped)
			refuse("rows of a table without an aggregate",
			       "A statistic keeps counts, sums, averages, extremes and distinct counts.",
			       kUsePlainView);

		Block *block = append(definition->blocks, definition->block_count);
		level.block = definition->block_count - 1;
		block->exists_part = -1;
		block->first_cell = definition->cell_count;
		take_from_and_where(&level);
		if (top)
			prepare_groups(&level);
		if (level.grouped || block->window != nullptr)
			(void) cell_for(&level, CellRole::kRows, 0, nullptr, nullptr);
	}

	Expr *first = nullptr;
	ListCell *cell;
	foreach (cell, query->targetList)
	{
		auto *target = lfirst_node(TargetEntry, cell);

		if (target->resjunk)
		{
			if (!level.grouped || target->ressortgroupref == 0)
				refuse("a hidden column", "Every column of the query must be in its result.",
				       kUsePlainView);
			continue;
		}
		Expr *expr = result_expr((Node *) target->expr, &level);
		if (first == nullptr)
			first = expr;
		if (top)
			definition->output = lappend(definition->output, expr);
	}
	if (top && query->havingQual != nullptr)
		definition->having = result_expr(query->havingQual, &level);
	if (level.block >= 0)
	{
		Block *block = &definition->blocks[level.block];

		block->cell_count = definition->cell_count - block->first_cell;
	}
	return first;
}

Definition *
analyze(Query *query, MemoryContext context, bool is_new)
{
	MemoryContext caller = MemoryContextSwitchTo(context);
	auto *definition = static_cast<Definition *>(palloc0(sizeof(Definition)));

	definition->context = context;
	definition->valid = true;
	definition->is_new = is_new;
	(void) open_level(definition, castNode(Query, copyObjectImpl(query)), true);
	if (definition->block_count == 0)
		refuse("no table at all", "There is nothing to keep.", kUsePlainView);
	assemble(definition);
	MemoryContextSwitchTo(caller);
	return definition;
}

} /* namespace cache_ext::statistics */
