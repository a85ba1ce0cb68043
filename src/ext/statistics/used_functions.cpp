/*-------------------------------------------------------------------------
 *
 * used_functions.cpp
 *		See used_functions.hpp.
 *
 * A function of the same arguments may mean something else from one command
 * on.  Sessions have the old meaning compiled in (SQL functions are inlined),
 * so this command invalidates the sources: who takes a lock on one after the
 * commit compiles anew.  The filling locks out writers for a moment, after the
 * same commit, so all partial rows of the old meaning are visible to its
 * snapshot, which folds them away.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/used_functions.hpp"
#include "ext/statistics/capture.hpp"
#include "ext/statistics/definition.hpp"
#include "ext/statistics/fill.hpp"

extern "C" {
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/skey.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_rewrite.h"
#include "rewrite/rewriteHandler.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
}

namespace cache_ext::statistics {

static Oid
view_of_rule(Oid rule)
{
	Relation catalog = table_open(RewriteRelationId, AccessShareLock);
	HeapTuple tuple = get_catalog_object_by_oid(catalog, Anum_pg_rewrite_oid, rule);
	Oid view = HeapTupleIsValid(tuple)
	               ? reinterpret_cast<Form_pg_rewrite>(GETSTRUCT(tuple))->ev_class
	               : InvalidOid;

	table_close(catalog, AccessShareLock);
	return view;
}

/* The views, operators and functions that PostgreSQL knows to need a function or an operator. */
struct Dependants
{
	List *views;
	List *operators;
	List *functions;
};

static void
add_dependants(Dependants *found, Oid class_id, Oid object)
{
	Relation catalog = table_open(DependRelationId, AccessShareLock);
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
	            ObjectIdGetDatum(class_id));
	ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ,
	            ObjectIdGetDatum(object));
	SysScanDesc scan = systable_beginscan(catalog, DependReferenceIndexId, true, nullptr, 2, keys);
	while (HeapTuple tuple = systable_getnext(scan))
	{
		auto *form = reinterpret_cast<Form_pg_depend>(GETSTRUCT(tuple));

		if (form->classid == RewriteRelationId)
			found->views = list_append_unique_oid(found->views, view_of_rule(form->objid));
		else if (form->classid == OperatorRelationId)
			found->operators = list_append_unique_oid(found->operators, form->objid);
		else if (form->classid == ProcedureRelationId)
			found->functions = list_append_unique_oid(found->functions, form->objid);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
}

/* Also those that need it through other operators and functions. */
static List *
views_that_need(Oid function)
{
	Dependants found = {NIL, NIL, list_make1_oid(function)};
	int operators = 0;

	for (int functions = 0; functions < list_length(found.functions); ++functions)
	{
		add_dependants(&found, ProcedureRelationId, list_nth_oid(found.functions, functions));
		for (; operators < list_length(found.operators); ++operators)
			add_dependants(&found, OperatorRelationId, list_nth_oid(found.operators, operators));
	}
	return found.views;
}

static void
name_statistic(void *statistic)
{
	errcontext("statistic \"%s\", whose query uses the function", static_cast<char *>(statistic));
}

/* Whether it can still be kept; raises when it cannot. */
static void
check_query(const StatisticRow &row)
{
	ErrorContextCallback context = {error_context_stack, name_statistic,
	                                get_rel_name(row.relation)};
	Relation view = table_open(row.query, AccessShareLock);

	error_context_stack = &context;
	(void) analyze(get_view_query(view), CurrentMemoryContext, false);
	error_context_stack = context.previous;
	table_close(view, NoLock);
}

void
forget_compiled_statistic(int32 statistic)
{
	ListCell *cell;

	foreach (cell, sources_of_statistic(statistic))
	{
		SourceRow source;

		if (find_source(lfirst_int(cell), &source))
			forget_compiled(source.relation);
	}
}

void
follow_function(Oid function)
{
	ListCell *cell;

	foreach (cell, views_that_need(function))
	{
		StatisticRow row;

		if (!find_statistic_by_relation(lfirst_oid(cell), &row) || row.query != lfirst_oid(cell))
			continue;
		check_query(row);
		unfill(row.id);
		forget_compiled_statistic(row.id);
	}
}

} /* namespace cache_ext::statistics */
