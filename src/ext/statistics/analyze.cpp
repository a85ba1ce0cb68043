/*-------------------------------------------------------------------------
 *
 * analyze.cpp
 *		Taking a query apart, refusing what cannot be kept exact.
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

void
refuse(const char *construct, const char *detail, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
	                errmsg("a statistic cannot contain %s", construct),
	                errdetail_internal("%s", detail), errhint("%s", hint)));
	pg_unreachable();
}

KeyType
key_of(Expr *expr, const char *what)
{
	return key_type(getBaseType(exprType((Node *) expr)), exprCollation((Node *) expr), what);
}

Expr *
source_expr(Node *node, Index varno, const char *what)
{
	if (contain_mutable_functions(node))
		ereport(ERROR,
		        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		         errmsg("a statistic cannot contain a function that is not immutable in %s", what),
		         errdetail("Its value could change without any change to a row, unseen by "
		                   "the statistic."),
		         errhint("Cast timestamptz with AT TIME ZONE and a constant zone, or keep the "
		                 "expression in a column.  A window relative to now() is a comparison in "
		                 "WHERE with a column of type timestamp, timestamptz or date.")));
	if (contain_subplans(node) || checkExprHasSubLink(node))
		refuse(
		    "a subquery here",
		    "Only [NOT] EXISTS in WHERE and scalar subqueries in a SELECT without FROM are kept.",
		    kUsePlainView);

	node = (Node *) copyObjectImpl(node);
	if (varno != 1)
		ChangeVarNodes(node, (int) varno, 1, 0);

	ListCell *cell;
	foreach (cell, pull_var_clause(node, 0))
	{
		auto *var = lfirst_node(Var, cell);

		if (var->varattno < 0)
			refuse("a system column", "System columns change without a change to the row's data.",
			       "Use a column of the table.");
		if (var->varattno == 0)
			refuse("a whole-row reference", "Adding a column to the table would change it unseen.",
			       "Name the columns.");
	}
	return (Expr *) node;
}

/* The checks of a source that need to look at it. */
static void
check_source(Oid source)
{
	Relation relation = table_open(source, AccessShareLock);
	Form_pg_class form = RelationGetForm(relation);

	if (form->relkind != RELKIND_RELATION && form->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
		        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		         errmsg("a statistic cannot read \"%s\"", RelationGetRelationName(relation)),
		         errdetail("It is a view, foreign table or other relation whose changes fire no "
		                   "triggers."),
		         errhint("Name the tables beneath it.")));
	if (IsCatalogRelation(relation))
		refuse("a system catalog", "System catalogs have no triggers.", kUsePlainView);
	if (form->relpersistence != RELPERSISTENCE_PERMANENT)
		refuse("a temporary or unlogged table",
		       "Its rows do not survive what the statistic survives.",
		       "Use a permanent table (ALTER TABLE ... SET LOGGED).");
	if (form->relrowsecurity)
		refuse("a table with row security", "The statistic would show rows that policies hide.",
		       "Disable row security on the table, or use a plain view.");
	if (form->relispartition)
		refuse("a partition as its source",
		       "Rows that reach it through its parent would not be seen.",
		       "Read the partitioned table, with a WHERE that selects the partition.");
	table_close(relation, NoLock);
}

Oid
source_table(const Definition *definition, Query *query, Index varno)
{
	RangeTblEntry *rte = rt_fetch(varno, query->rtable);

	if (rte->rtekind != RTE_RELATION)
		refuse("a FROM item that is not a table",
		       "Subqueries, functions, VALUES and CTEs in FROM have no triggers.", kUsePlainView);
	if (rte->tablesample != nullptr)
		refuse("TABLESAMPLE", "A sample is not determined by the rows.", "Count all rows.");
	if (!rte->inh)
		refuse("ONLY", "A statistic counts a table with its partitions.", "Leave ONLY out.");

	if (definition->is_new)
		check_source(rte->relid);
	return rte->relid;
}

/* The index that makes a plain view of the query fast, if it orders rows of one table. */
static const char *
top_rows_hint(Query *query)
{
	constexpr const char *kTopGroups =
	    "Leave ORDER BY and LIMIT out, and use them in a plain view over the statistic.";
	Index varno = 0;
	StringInfoData columns;
	ListCell *cell;

	initStringInfo(&columns);
	foreach (cell, query->sortClause)
	{
		auto *clause = lfirst_node(SortGroupClause, cell);
		auto *var = (Var *) get_sortgroupclause_expr(clause, query->targetList);
		if (!IsA(var, Var) || var->varattno <= 0 || (varno != 0 && var->varno != (int) varno) ||
		    rt_fetch(var->varno, query->rtable)->rtekind != RTE_RELATION)
			return kTopGroups;
		varno = (Index) var->varno;

		TypeCacheEntry *type = lookup_type_cache(var->vartype, TYPECACHE_BTREE_OPFAMILY);
		bool descends =
		    get_op_opfamily_strategy(clause->sortop, type->btree_opf) == BTGreaterStrategyNumber;
		appendStringInfo(&columns, "%s%s%s%s", columns.len == 0 ? "" : ", ",
		                 quote_identifier(get_attname(rt_fetch(varno, query->rtable)->relid,
		                                              var->varattno, false)),
		                 descends ? " DESC" : "",
		                 clause->nulls_first == descends ? ""
		                 : clause->nulls_first           ? " NULLS FIRST"
		                                                 : " NULLS LAST");
	}
	if (varno == 0 || query->hasAggs || query->groupClause != NIL)
		return kTopGroups;

	Oid table = rt_fetch(varno, query->rtable)->relid;
	return psprintf("A plain view of the query is fast with this index: CREATE INDEX ON %s (%s)",
	                quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)),
	                                           get_rel_name(table)),
	                columns.data);
}

void
refuse_clauses(Query *query)
{
	if (query->commandType != CMD_SELECT || query->hasModifyingCTE)
		refuse("a statement that writes", "Its query must be a SELECT.", kUsePlainView);
	if (query->setOperations != nullptr)
		refuse("UNION, INTERSECT or EXCEPT", "A statistic keeps one SELECT.",
		       "Keep a statistic per branch and combine them in a plain view.");
	if (query->cteList != NIL)
		refuse("WITH", "Common table expressions are not kept.", kUsePlainView);
	if (query->limitCount != nullptr || query->limitOffset != nullptr)
		refuse("LIMIT or OFFSET", "The rows beyond the limit would have to be kept, too.",
		       top_rows_hint(query));
	if (query->sortClause != NIL && query->distinctClause == NIL)
		refuse("ORDER BY", "A relation has no order.", "Add ORDER BY where the statistic is read.");
	if (query->distinctClause != NIL)
		refuse("SELECT DISTINCT", "Rows are kept by GROUP BY.",
		       "Use GROUP BY on the same columns.");
	if (query->hasWindowFuncs)
		refuse("a window function", "Its value depends on other rows of the result.",
		       kUsePlainView);
	if (query->hasTargetSRFs)
		refuse("a set-returning function", "A result row must follow from one group.",
		       kUsePlainView);
	if (query->groupingSets != NIL)
		refuse("GROUPING SETS, ROLLUP or CUBE", "A statistic keeps one grouping.",
		       "Keep a statistic per grouping.");
	if (query->rowMarks != NIL)
		refuse("FOR UPDATE or FOR SHARE", "A statistic has no rows to lock.", "Leave it out.");
}

/* ---- the select list ---- */

constexpr int kLastChange = -1; /* until the number of aggregates is known */

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
			refuse("a subquery here",
			       "Only [NOT] EXISTS in WHERE and scalar subqueries in a SELECT without FROM are "
			       "kept.",
			       kUsePlainView);
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

/* ---- putting it together ---- */

static TupleDesc
describe_keys(const KeyType *keys, int count)
{
	TupleDesc desc = CreateTemplateTupleDesc(count);

	for (int i = 0; i < count; ++i)
	{
		TupleDescInitEntry(desc, (AttrNumber) (i + 1), psprintf("k%d", i + 1), keys[i].type, -1, 0);
		TupleDescInitEntryCollation(desc, (AttrNumber) (i + 1), keys[i].collation);
	}
	return desc;
}

/* Where the time of the last change stands in the raw row, and whether an expression asks for it.
 */
struct LastChange
{
	AttrNumber column;
	bool met;
};

static bool
place_last_change(Node *node, LastChange *last_change)
{
	if (node == nullptr)
		return false;
	if (IsA(node, Var))
	{
		auto *var = (Var *) node;

		if (var->varattno == kLastChange)
		{
			var->varattno = last_change->column;
			last_change->met = true;
		}
		return false;
	}
	return pg::walk_children<LastChange>(node, place_last_change, last_change);
}

/* The columns of a side's part, and its cells: rows first, then those of the block over this side.
 */
static void
finish_side(Definition *d, Part *part, const Side &side)
{
	const Block &block = d->blocks[part->block];
	ListCell *column;
	int number = 0;

	part->key_count = list_length(side.columns);
	part->keys = static_cast<KeyType *>(palloc(sizeof(KeyType) * Max(part->key_count, 1)));
	foreach (column, side.columns)
		part->keys[number++] = key_of((Expr *) lfirst(column), "a column of several tables' rows");

	part->cell_count = 1;
	for (int i = 0; i < block.cell_count; ++i)
	{
		Cell &cell = d->cells[block.first_cell + i];

		if (cell.place.side != part->side)
			continue;
		bool is_rows = cell.role == CellRole::kRows && cell.filter == nullptr;
		cell.place.number = is_rows ? 0 : part->cell_count++;
	}
}

static void
finish_buckets(const Definition *d, Part *part)
{
	const Block &block = d->blocks[part->block];

	part->keys = group_keys(d, block.window, 0, &part->key_count);
	part->cell_count = block.cell_count;
}

static void
finish_parts(Definition *d)
{
	d->cell_is_sum = static_cast<bool *>(palloc0(Max(d->cell_count, 1)));
	for (int i = 0; i < d->cell_count; ++i)
		d->cell_is_sum[i] = is_sum(d->cells[i].role);
	for (int i = 0; i < d->part_count; ++i)
	{
		Part &part = d->parts[i];
		const Block &block = d->blocks[part.block];

		if (part.kind == PartKind::kSide)
			finish_side(d, &part, block.sides[part.side]);
		else if (part.kind == PartKind::kBuckets)
			finish_buckets(d, &part);
		else
			part.cell_count = part.kind == PartKind::kExists ? block.cell_count + 1 : 1;
		part.cell_is_sum = static_cast<bool *>(palloc0(part.cell_count));
		for (int c = 0; !part.has_values() && c < block.cell_count; ++c)
		{
			const Cell &cell = d->cells[block.first_cell + c];

			if (part.kind != PartKind::kSide)
				part.cell_is_sum[c] = is_sum(cell.role);
			else if (cell.place.side == part.side && cell.place.number > 0)
				part.cell_is_sum[cell.place.number] = is_sum(cell.role);
		}
		part.key_desc = describe_keys(part.keys, part.key_count);
		if (part.has_values())
		{
			part.order = static_cast<FmgrInfo *>(palloc0(sizeof(FmgrInfo)));
			fmgr_info(part.value_key().order_proc, part.order);
		}
	}
}

static void
finish_output(Definition *d)
{
	int columns = d->group_count + d->aggregate_count + 1;

	d->raw_desc = CreateTemplateTupleDesc(columns);
	for (int i = 0; i < d->group_count; ++i)
	{
		auto *expr = (Node *) list_nth(d->group_exprs, i);

		TupleDescInitEntry(d->raw_desc, (AttrNumber) (i + 1), psprintf("g%d", i + 1),
		                   exprType(expr), exprTypmod(expr), 0);
		TupleDescInitEntryCollation(d->raw_desc, (AttrNumber) (i + 1), exprCollation(expr));
	}
	for (int i = 0; i < d->aggregate_count; ++i)
	{
		auto number = (AttrNumber) (d->group_count + i + 1);

		TupleDescInitEntry(d->raw_desc, number, psprintf("a%d", i + 1), d->aggregates[i].type, -1,
		                   0);
		TupleDescInitEntryCollation(d->raw_desc, number, d->aggregates[i].node->aggcollid);
	}
	TupleDescInitEntry(d->raw_desc, (AttrNumber) columns, "last_change", TIMESTAMPTZOID, -1, 0);

	int outputs = list_length(d->output);
	d->output_group = static_cast<int *>(palloc(sizeof(int) * outputs));
	d->output_is_last_change = static_cast<bool *>(palloc0(sizeof(bool) * outputs));
	for (int i = 0; i < outputs; ++i)
	{
		auto *expr = (Node *) list_nth(d->output, i);
		LastChange last_change = {(AttrNumber) columns, false};

		(void) place_last_change(expr, &last_change);
		d->output_is_last_change[i] = last_change.met;

		bool is_group = IsA(expr, Var) && ((Var *) expr)->varattno <= d->group_count;
		d->output_group[i] = is_group ? ((Var *) expr)->varattno - 1 : -1;
	}
	LastChange last_change = {(AttrNumber) columns, false};
	(void) place_last_change((Node *) d->having, &last_change);
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
	definition->group_desc = describe_keys(definition->groups, definition->group_count);
	finish_parts(definition);
	finish_output(definition);
	MemoryContextSwitchTo(caller);
	return definition;
}

} /* namespace cache_ext::statistics */
