/*-------------------------------------------------------------------------
 *
 * refuse.cpp
 *		What no level of a query may contain, with its name and what to do instead.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/level.hpp"
#include "ext/statistics/triggers.hpp"
#include "pg/tree.hpp"

extern "C" {
#include "access/stratnum.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "parser/parse_relation.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/typcache.h"
}

namespace cache_ext::statistics {

constexpr const char *kUsePlainQuery = "Use a plain view for the whole query.";

void
refuse(const char *construct, const char *detail, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
	                errmsg("a statistic cannot contain %s", construct),
	                errdetail_internal("%s", detail), errhint("%s", hint)));
	pg_unreachable();
}

void
refuse_many_keys()
{
	refuse("more than 32 groups and values",
	       "They are kept by one index, which has no more columns.", "Keep several statistics.");
}

/* ---- expressions over a row ---- */

/* Functions that PostgreSQL calls immutable although settings of the session change what they give.
 */
static bool
depends_on_settings(Oid function, void *)
{
	switch (function)
	{
	case F_FLOAT4OUT:
	case F_FLOAT8OUT:
	case F_BYTEAOUT:
	case F_POINT_OUT:
	case F_LSEG_OUT:
	case F_PATH_OUT:
	case F_BOX_OUT:
	case F_POLY_OUT:
	case F_LINE_OUT:
	case F_CIRCLE_OUT:
	case F_QUOTE_IDENT:
		return true;
	default:
		return false;
	}
}

static bool
shows_settings(Node *node, void *)
{
	if (node == nullptr)
		return false;
	if (check_functions_in_node(node, depends_on_settings, nullptr))
		return true;
	if (IsA(node, XmlExpr) && ((XmlExpr *) node)->op != IS_XMLSERIALIZE &&
	    ((XmlExpr *) node)->op != IS_DOCUMENT)
		return true;
#if PG_VERSION_NUM >= 160000
	if (IsA(node, JsonConstructorExpr))
		return true;
#endif
	return pg::walk_children<void>(node, shows_settings, nullptr);
}

static bool
is_mutable(Oid function, void *found)
{
	*static_cast<Oid *>(found) = function;
	return func_volatile(function) != PROVOLATILE_IMMUTABLE;
}

/* The innermost function that is not immutable; InvalidOid when the syntax does not name one. */
static bool
find_mutable(Node *node, Oid *found)
{
	if (node == nullptr)
		return false;
	if (pg::walk_children<Oid>(node, find_mutable, found) ||
	    check_functions_in_node(node, is_mutable, found))
		return true;
	*found = InvalidOid;
	return IsA(node, SQLValueFunction);
}

[[noreturn]] static void
refuse_mutable(Node *node, const char *what)
{
	Oid function = InvalidOid;

	(void) find_mutable(node, &function);
	ereport(ERROR,
	        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
	         errmsg("a statistic cannot contain a function that is not immutable in %s", what),
	         OidIsValid(function)
	             ? errdetail("The value of %s could change without any change to a row, unseen by "
	                         "the statistic.",
	                         format_procedure(function))
	             : errdetail("Its value could change without any change to a row, unseen by "
	                         "the statistic."),
	         strcmp(what, "FILTER") == 0
	             ? errhint("A window relative to now() stands in WHERE: select such a value by a "
	                       "scalar subquery of its own.")
	             : errhint("Cast timestamptz with AT TIME ZONE and a constant zone, or keep the "
	                       "expression in a column.  A window relative to now() is a comparison in "
	                       "WHERE with a column of type timestamp, timestamptz or date.")));
	pg_unreachable();
}

static bool
find_subquery(Node *node, SubLink **found)
{
	if (node == nullptr)
		return false;
	if (IsA(node, SubLink))
	{
		*found = (SubLink *) node;
		return true;
	}
	return pg::walk_children<SubLink *>(node, find_subquery, found);
}

void
refuse_subquery(Node *node, const char *what)
{
	SubLink *link = nullptr;
	const char *kind = "a subquery";

	(void) find_subquery(node, &link);
	switch (link == nullptr ? EXPR_SUBLINK : link->subLinkType)
	{
	case EXISTS_SUBLINK:
		kind = "EXISTS within another expression";
		break;
	case ANY_SUBLINK:
		kind = "IN or ANY with a subquery within another expression";
		break;
	case ALL_SUBLINK:
		kind = "a comparison with ALL of a subquery";
		break;
	case ARRAY_SUBLINK:
		kind = "ARRAY of a subquery";
		break;
	default:
		kind = "a scalar subquery";
	}
	ereport(ERROR,
	        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
	         errmsg("a statistic cannot contain %s in %s", kind, what),
	         errdetail("Only [NOT] EXISTS and [NOT] IN that WHERE combines by AND, and scalar "
	                   "subqueries in a SELECT without FROM are kept."),
	         errhint("%s", kUsePlainView)));
	pg_unreachable();
}

Expr *
source_expr(Node *node, Index varno, const char *what)
{
	if (contain_mutable_functions(node))
		refuse_mutable(node, what);
	if (contain_subplans(node) || checkExprHasSubLink(node))
		refuse_subquery(node, what);
	if (shows_settings(node, nullptr))
		ereport(ERROR,
		        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		         errmsg("a statistic cannot contain text that depends on settings in %s", what),
		         errdetail("How floating-point numbers, bytea, geometric values, identifiers and "
		                   "XML are written depends on the session, so a row could count for one "
		                   "text when it comes and for another when it goes."),
		         errhint("Use the value itself, round() of a numeric, or encode() of a bytea.")));

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

/* ---- sources ---- */

[[noreturn]] static void
refuse_kind(Relation relation)
{
	const char *kind = "another relation than a table";
	const char *hint = "Name the tables beneath it.";

	switch (relation->rd_rel->relkind)
	{
	case RELKIND_VIEW:
		kind = "a view";
		break;
	case RELKIND_MATVIEW:
		kind = "a materialized view";
		break;
	case RELKIND_FOREIGN_TABLE:
		kind = "a foreign table";
		hint = "Keep the statistic where the table is.";
		break;
	default:
		break;
	}
	ereport(ERROR,
	        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
	         errmsg("a statistic cannot read \"%s\"", RelationGetRelationName(relation)),
	         errdetail("It is %s, whose changes fire no triggers.", kind), errhint("%s", hint)));
	pg_unreachable();
}

/* Of a source and of each of its partitions and children. */
static void
check_rows(Relation relation)
{
	Form_pg_class form = RelationGetForm(relation);

	if (form->relkind != RELKIND_RELATION && form->relkind != RELKIND_PARTITIONED_TABLE)
		refuse_kind(relation);
	if (form->relpersistence != RELPERSISTENCE_PERMANENT)
		refuse("a temporary or unlogged table",
		       "Its rows do not survive what the statistic survives.",
		       "Use a permanent table (ALTER TABLE ... SET LOGGED).");
	if (form->relrowsecurity)
		refuse("a table with row security", "The statistic would show rows that policies hide.",
		       "Disable row security on the table, or use a plain view.");
}

/* The checks of a source that need to look at it. */
static void
check_source(Oid source)
{
	Relation relation = table_open(source, AccessShareLock);
	ListCell *cell;

	check_rows(relation);
	if (IsCatalogRelation(relation))
		refuse("a system catalog", "System catalogs have no triggers.", kUsePlainView);
	if (RelationGetForm(relation)->relnamespace == get_namespace_oid(kInternalSchema, true))
		refuse("an internal table of cache_ext", "Its changes are those of the statistics.",
		       "Read statistics_status.");
	if (RelationGetForm(relation)->relispartition)
		refuse("a partition as its source",
		       "Rows that reach it through its parent would not be seen.",
		       "Read the partitioned table, with a WHERE that selects the partition.");
	table_close(relation, NoLock);

	foreach (cell, find_all_inheritors(source, AccessShareLock, nullptr))
	{
		Relation member = table_open(lfirst_oid(cell), NoLock);

		check_rows(member);
		table_close(member, NoLock);
	}
}

static void
check_columns(Query *query, RangeTblEntry *rte)
{
#if PG_VERSION_NUM >= 160000
	Bitmapset *read = getRTEPermissionInfo(query->rteperminfos, rte)->selectedCols;
#else
	Bitmapset *read = rte->selectedCols;
	(void) query;
#endif

	for (int member = bms_next_member(read, -1); member >= 0;
	     member = bms_next_member(read, member))
	{
		auto column = (AttrNumber) (member + FirstLowInvalidHeapAttributeNumber);

		if (is_hidden_from_triggers(rte->relid, column))
			refuse("a generated column that is virtual, or of a partitioned table",
			       "PostgreSQL shows triggers its rows without the value.",
			       psprintf("Use the expression of column %s.",
			                quote_identifier(get_attname(rte->relid, column, false))));
	}
}

/* What stands in FROM and is no table. */
static const char *
from_item(const RangeTblEntry *rte)
{
	switch (rte->rtekind)
	{
	case RTE_SUBQUERY:
		return rte->lateral ? "a LATERAL subquery in FROM" : "a subquery in FROM";
	case RTE_FUNCTION:
		return "a function in FROM";
	case RTE_TABLEFUNC:
		return "XMLTABLE or JSON_TABLE in FROM";
	case RTE_VALUES:
		return "VALUES in FROM";
	default:
		return "a FROM item that is not a table";
	}
}

Oid
source_table(const Definition *definition, Query *query, Index varno)
{
	RangeTblEntry *rte = rt_fetch(varno, query->rtable);

	if (rte->rtekind != RTE_RELATION)
		refuse(from_item(rte), "Only tables have triggers, by which changes are noticed.",
		       kUsePlainView);
	if (rte->tablesample != nullptr)
		refuse("TABLESAMPLE", "A sample is not determined by the rows.", "Count all rows.");
	if (!rte->inh)
		refuse("ONLY", "A statistic counts a table with its partitions.", "Leave ONLY out.");

	if (definition->is_new)
	{
		check_source(rte->relid);
		check_columns(query, rte);
	}
	return rte->relid;
}

/* ---- clauses ---- */

/* A column of an index that orders rows as this clause does; nullptr when no index can. */
static const char *
index_column(Query *query, SortGroupClause *clause, Index varno)
{
	Node *node = get_sortgroupclause_expr(clause, query->targetList);
	Oid table = rt_fetch(varno, query->rtable)->relid;
	const char *column;

	if (contain_mutable_functions(node) || checkExprHasSubLink(node))
		return nullptr;
	if (IsA(node, Var) && ((Var *) node)->varattno > 0)
		column = quote_identifier(get_attname(table, ((Var *) node)->varattno, false));
	else
	{
		node = (Node *) copyObjectImpl(node);
		if (varno != 1)
			ChangeVarNodes(node, (int) varno, 1, 0);
		column = psprintf("(%s)",
		                  deparse_expression(node, deparse_context_for(get_rel_name(table), table),
		                                     false, false));
	}

	TypeCacheEntry *type = lookup_type_cache(exprType(node), TYPECACHE_BTREE_OPFAMILY);
	bool descends =
	    get_op_opfamily_strategy(clause->sortop, type->btree_opf) == BTGreaterStrategyNumber;
	return psprintf("%s%s%s", column, descends ? " DESC" : "",
	                clause->nulls_first == descends ? ""
	                : clause->nulls_first           ? " NULLS FIRST"
	                                                : " NULLS LAST");
}

/* The index that makes a plain view of the query fast, if it orders rows of one table. */
static const char *
top_rows_hint(Query *query)
{
	Index varno = 0;
	StringInfoData columns;
	ListCell *cell;

	if (query->hasAggs || query->groupClause != NIL || query->distinctClause != NIL)
		return "Leave ORDER BY and LIMIT out, and use them in a plain view over the statistic.";
	initStringInfo(&columns);
	foreach (cell, query->sortClause)
	{
		auto *clause = lfirst_node(SortGroupClause, cell);
		Node *node = get_sortgroupclause_expr(clause, query->targetList);
		int member;

		if (!bms_get_singleton_member(pull_varnos(nullptr, node), &member) ||
		    (varno != 0 && varno != (Index) member) ||
		    rt_fetch(member, query->rtable)->rtekind != RTE_RELATION)
			return kUsePlainQuery;
		varno = (Index) member;

		const char *column = index_column(query, clause, varno);
		if (column == nullptr)
			return kUsePlainQuery;
		appendStringInfo(&columns, "%s%s", columns.len == 0 ? "" : ", ", column);
	}
	if (varno == 0)
		return kUsePlainQuery;

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
		refuse(query->hasRecursive ? "WITH RECURSIVE" : "WITH",
		       "Common table expressions are not kept.", kUsePlainView);
	if (query->limitCount != nullptr || query->limitOffset != nullptr)
		refuse("LIMIT or OFFSET", "The rows beyond the limit would have to be kept, too.",
		       top_rows_hint(query));
	if (query->sortClause != NIL && query->distinctClause == NIL)
		refuse("ORDER BY", "A relation has no order.", "Add ORDER BY where the statistic is read.");
	if (query->hasDistinctOn)
		refuse("DISTINCT ON", "Which row of several it shows depends on their order.",
		       kUsePlainQuery);
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

} /* namespace cache_ext::statistics */
