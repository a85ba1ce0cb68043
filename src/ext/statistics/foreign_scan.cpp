/*-------------------------------------------------------------------------
 *
 * foreign_scan.cpp
 *		The foreign table behind a statistic, so that the planner can push down
 *		the look-up of a group.
 *
 * Conditions `group column = value` on leading groups become the scan's filter;
 * they stay in the plan as well, so a filter may be wider than they are.
 *
 *-------------------------------------------------------------------------
 */
#include <algorithm>

#include "ext/statistics/read.hpp"
#include "ext/statistics/restore.hpp"
#include "ext/statistics/sources.hpp"
#include "pg/guard.hpp"

extern "C" {
#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "foreign/fdwapi.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/planmain.h"
#include "optimizer/restrictinfo.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
}

namespace cache_ext::statistics {

constexpr double kUnknownGroups = 1000;
constexpr double kStartupCost = 10;

/* A null pointer for one that was restored and not taken up yet: its query is to be run. */
static Definition *
definition_of_table(Oid state)
{
	StatisticRow row;
	Definition *definition =
	    find_statistic_by_relation(state, &row) ? definition_of(row.id) : nullptr;

	if (definition == nullptr && !OidIsValid(query_of_state(state)))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		                errmsg("\"%s\" belongs to no statistic", get_rel_name(state)),
		                errhint("Create the statistic anew with statistics_create().")));
	return definition;
}

/* ---- planning ---- */

/* Planning state of one scan: for each leading group, the expression it must equal. */
struct ScanPlan
{
	Definition *definition;
	List *keys;
};

/* The value that clause compares this group's column with, or nullptr. */
static Expr *
value_for_group(Expr *clause, Index relid, const Definition *definition, int group)
{
	if (!IsA(clause, OpExpr) || list_length(((OpExpr *) clause)->args) != 2)
		return nullptr;

	auto *op = (OpExpr *) clause;
	const KeyType &key = definition->groups[group];

	if (op->opno != key.equality || op->inputcollid != key.collation)
		return nullptr;
	for (int side = 0; side < 2; ++side)
	{
		auto *column = (Node *) list_nth(op->args, side);
		auto *value = (Node *) list_nth(op->args, 1 - side);

		while (IsA(column, RelabelType))
			column = (Node *) ((RelabelType *) column)->arg;
		if (!IsA(column, Var) || ((Var *) column)->varno != (int) relid ||
		    ((Var *) column)->varattno < 1 ||
		    definition->output_group[((Var *) column)->varattno - 1] != group)
			continue;
		if (contain_var_clause(value) || contain_volatile_functions(value))
			continue;
		return (Expr *) value;
	}
	return nullptr;
}

static List *
leading_keys(RelOptInfo *baserel, const Definition *definition)
{
	List *keys = NIL;

	for (int group = 0; group < definition->group_count; ++group)
	{
		Expr *found = nullptr;
		ListCell *cell;

		foreach (cell, baserel->baserestrictinfo)
		{
			found = value_for_group(lfirst_node(RestrictInfo, cell)->clause, baserel->relid,
			                        definition, group);
			if (found != nullptr)
				break;
		}
		if (found == nullptr)
			break;
		keys = lappend(keys, found);
	}
	return keys;
}

static double
group_estimate(const Definition *definition)
{
	if (definition->group_count == 0)
		return 1;

	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(definition->totals));
	if (!HeapTupleIsValid(tuple))
		return kUnknownGroups;
	double tuples = reinterpret_cast<Form_pg_class>(GETSTRUCT(tuple))->reltuples;
	ReleaseSysCache(tuple);
	return tuples > 0 ? tuples : kUnknownGroups;
}

static void
get_rel_size(PlannerInfo *root, RelOptInfo *baserel, Oid table)
{
	auto *plan = static_cast<ScanPlan *>(palloc(sizeof(ScanPlan)));

	plan->definition = definition_of_table(table);
	baserel->fdw_private = plan;
	if (plan->definition == nullptr)
	{
		plan->keys = NIL;
		baserel->tuples = baserel->rows = kUnknownGroups;
		return;
	}
	plan->keys = leading_keys(baserel, plan->definition);
	baserel->tuples = group_estimate(plan->definition);
	baserel->rows = list_length(plan->keys) == plan->definition->group_count
	                    ? 1
	                    : clamp_row_est(baserel->tuples *
	                                    clauselist_selectivity(root, baserel->baserestrictinfo, 0,
	                                                           JOIN_INNER, nullptr));
}

static void
get_paths(PlannerInfo *root, RelOptInfo *baserel, Oid)
{
	auto *plan = static_cast<ScanPlan *>(baserel->fdw_private);
	double visited = plan->keys == NIL ? baserel->tuples : baserel->rows;
	Cost total = kStartupCost + visited * cpu_tuple_cost * 2;

	add_path(baserel, (Path *) create_foreignscan_path(root, baserel, nullptr, baserel->rows,
#if PG_VERSION_NUM >= 180000
	                                                   0,
#endif
	                                                   kStartupCost, total, NIL, nullptr, nullptr,
#if PG_VERSION_NUM >= 170000
	                                                   NIL,
#endif
	                                                   NIL));
}

static ForeignScan *
get_plan(PlannerInfo *, RelOptInfo *baserel, Oid, ForeignPath *, List *tlist, List *clauses,
         Plan *outer)
{
	auto *plan = static_cast<ScanPlan *>(baserel->fdw_private);

	return make_foreignscan(tlist, extract_actual_clauses(clauses, false), baserel->relid,
	                        plan->keys, NIL, NIL, NIL, outer);
}

/* ---- execution ---- */

struct StatisticScan
{
	Definition *definition;
	List *keys; /* of ExprState * */
	Tuplestorestate *rows;
	TupleTableSlot *row;
};

static void
begin_scan(ForeignScanState *node, int flags)
{
	auto *plan = (ForeignScan *) node->ss.ps.plan;

	if (flags & EXEC_FLAG_EXPLAIN_ONLY)
		return;

	auto *state = static_cast<StatisticScan *>(palloc0(sizeof(StatisticScan)));
	state->definition = definition_of_table(RelationGetRelid(node->ss.ss_currentRelation));
	state->keys = ExecInitExprList(plan->fdw_exprs, (PlanState *) node);
	state->row = ExecInitExtraTupleSlot(
	    node->ss.ps.state, RelationGetDescr(node->ss.ss_currentRelation), &TTSOpsMinimalTuple);
	node->fdw_state = state;
}

/* The values of the key expressions; false when one is NULL, which equals nothing. */
static bool
evaluate_filter(ForeignScanState *node, StatisticScan *state, GroupFilter *filter)
{
	ListCell *cell;

	filter->count = 0;
	foreach (cell, state->keys)
	{
		int i = filter->count++;

		filter->values[i] = ExecEvalExpr(static_cast<ExprState *>(lfirst(cell)),
		                                 node->ss.ps.ps_ExprContext, &filter->nulls[i]);
		if (filter->nulls[i])
			return false;
	}
	return true;
}

/* A view shows what its owner may read, and so does a statistic. */
static bool
owner_may_read(const Definition *definition)
{
	Oid owner = relation_owner(definition->row.query);

	return std::all_of(definition->sources, definition->sources + definition->source_count,
	                   [owner](Oid source) {
		                   return pg_class_aclcheck(source, owner, ACL_SELECT) == ACLCHECK_OK;
	                   });
}

static void
read_rows(ForeignScanState *node, StatisticScan *state)
{
	GroupFilter filter;
	MemoryContext caller = MemoryContextSwitchTo(node->ss.ps.state->es_query_cxt);

	state->rows = tuplestore_begin_heap(false, false, work_mem);
	MemoryContextSwitchTo(node->ss.ps.ps_ExprContext->ecxt_per_tuple_memory);
	if (evaluate_filter(node, state, &filter))
		pg::guard([&] {
			Relation table = node->ss.ss_currentRelation;
			Snapshot snapshot = node->ss.ps.state->es_snapshot;

			if (state->definition != nullptr && owner_may_read(state->definition))
				read_statistic(state->definition, snapshot, &filter, state->rows,
				               RelationGetDescr(table));
			else
				run_query(query_of_state(RelationGetRelid(table)), snapshot, state->rows,
				          RelationGetDescr(table));
		});
	MemoryContextSwitchTo(caller);
}

static TupleTableSlot *
iterate(ForeignScanState *node)
{
	auto *state = static_cast<StatisticScan *>(node->fdw_state);
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;

	if (state->rows == nullptr)
		read_rows(node, state);

	ExecClearTuple(slot);
	if (tuplestore_gettupleslot(state->rows, true, false, state->row))
	{
		int columns = slot->tts_tupleDescriptor->natts;

		slot_getallattrs(state->row);
		memcpy(slot->tts_values, state->row->tts_values, sizeof(Datum) * columns);
		memcpy(slot->tts_isnull, state->row->tts_isnull, sizeof(bool) * columns);
		ExecStoreVirtualTuple(slot);
	}
	return slot;
}

static void
discard_rows(StatisticScan *state)
{
	if (state->rows != nullptr)
		tuplestore_end(state->rows);
	state->rows = nullptr;
}

static void
rescan(ForeignScanState *node)
{
	discard_rows(static_cast<StatisticScan *>(node->fdw_state));
}

static void
end_scan(ForeignScanState *node)
{
	if (node->fdw_state != nullptr)
		discard_rows(static_cast<StatisticScan *>(node->fdw_state));
}

} /* namespace cache_ext::statistics */

extern "C" {

PG_FUNCTION_INFO_V1(cache_ext_state_handler);

Datum
cache_ext_state_handler(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	FdwRoutine *routine = makeNode(FdwRoutine);

	routine->GetForeignRelSize = cache_ext::statistics::get_rel_size;
	routine->GetForeignPaths = cache_ext::statistics::get_paths;
	routine->GetForeignPlan = cache_ext::statistics::get_plan;
	routine->BeginForeignScan = cache_ext::statistics::begin_scan;
	routine->IterateForeignScan = cache_ext::statistics::iterate;
	routine->ReScanForeignScan = cache_ext::statistics::rescan;
	routine->EndForeignScan = cache_ext::statistics::end_scan;
	PG_RETURN_POINTER(routine);
}
}
