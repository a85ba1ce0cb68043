/*-------------------------------------------------------------------------
 *
 * query_traits.cpp
 *		What kind of query it is; see query_traits.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/cache/query_traits.hpp"

extern "C" {
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "nodes/primnodes.h"
#include "optimizer/optimizer.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/resowner.h"
}

namespace cache_ext::cache {

struct Traits
{
	bool by_settings;
	bool personal;
	bool sampled; /* by chance */
};

/* May the function's result differ between sessions of one role?  Notes it and goes on. */
static bool
note_function(Oid function, void *context)
{
	auto *traits = static_cast<Traits *>(context);

	switch (function)
	{
	case F_PG_BACKEND_PID:
	case F_PG_MY_TEMP_SCHEMA:
	case F_INET_CLIENT_ADDR:
	case F_INET_CLIENT_PORT:
	case F_INET_SERVER_ADDR:
	case F_INET_SERVER_PORT:
	case F_PG_SHOW_ALL_SETTINGS:
	case F_PG_PREPARED_STATEMENT:
	case F_PG_CURSOR:
	case F_PG_LISTENING_CHANNELS:
	case F_PG_CLIENT_ENCODING:
	case F_PG_TRIGGER_DEPTH:
		traits->personal = true;
		break;
	case F_CURRENT_SETTING_TEXT:
	case F_CURRENT_SETTING_TEXT_BOOL:
	case F_SESSION_USER:
		traits->by_settings = true;
		break;
	default:
		/* What a function of somebody's own looks at cannot be known. */
		if (function >= FirstNormalObjectId && func_volatile(function) != PROVOLATILE_IMMUTABLE)
			traits->by_settings = true;
		break;
	}
	return false;
}

static bool note_traits(Node *node, void *context);

/* Before PostgreSQL 16 walkers are declared without parameters, which C++ reads as "takes none". */
static bool
note_traits_below(Node *node, void *context)
{
	auto erased = reinterpret_cast<void (*)()>(note_traits);
#if PG_VERSION_NUM >= 160000
	auto walker = reinterpret_cast<tree_walker_callback>(erased);

	if (IsA(node, Query))
		return query_tree_walker_impl(reinterpret_cast<Query *>(node), walker, context, 0);
	return expression_tree_walker_impl(node, walker, context);
#else
	auto walker = reinterpret_cast<bool (*)()>(erased);

	if (IsA(node, Query))
		return query_tree_walker(reinterpret_cast<Query *>(node), walker, context, 0);
	return expression_tree_walker(node, walker, context);
#endif
}

static bool
note_traits(Node *node, void *context)
{
	auto *traits = static_cast<Traits *>(context);

	if (node == nullptr)
		return false;
	(void) check_functions_in_node(node, note_function, context);
	if (IsA(node, SQLValueFunction) &&
	    reinterpret_cast<SQLValueFunction *>(node)->op == SVFOP_SESSION_USER)
		traits->by_settings = true;
	if (IsA(node, TableSampleClause) &&
	    reinterpret_cast<TableSampleClause *>(node)->repeatable == nullptr)
		traits->sampled = true;
	return note_traits_below(node, context);
}

[[noreturn]] static void
refuse_writing()
{
	ereport(ERROR, (errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
	                errmsg("the query of a cache entry must not write"),
	                errhint("Give a SELECT without locking clause and without data-modifying "
	                        "WITH.")));
	pg_unreachable();
}

static void
refuse_utility(Node *statement)
{
	if (IsA(statement, ExplainStmt) || IsA(statement, VariableShowStmt))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		                errmsg("the query of a cache entry must be a SELECT")));
	refuse_writing();
}

/* Refuse what cannot be cached, and learn what the result depends on. */
static void
examine(CachedPlanSource *source, bool allow_volatile, QueryAnswer *answer)
{
	Traits traits = {false, false, false};
	Query *query = linitial_node(Query, source->query_list);
	ListCell *cell;

	if (query->commandType == CMD_UTILITY)
		refuse_utility(query->utilityStmt);
	if (query->commandType != CMD_SELECT || query->hasModifyingCTE || query->rowMarks != NIL)
		refuse_writing();
	(void) note_traits(reinterpret_cast<Node *>(query), &traits);
	if (!allow_volatile &&
	    (traits.sampled || contain_volatile_functions(reinterpret_cast<Node *>(query))))
		ereport(ERROR,
		        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		         traits.sampled ? errmsg("the query of a cache entry takes a sample")
		                        : errmsg("the query of a cache entry uses a volatile function"),
		         errdetail("Its result may change without any table changing."),
		         errhint("Give a ttl to accept that the cached result is up to that old.")));

	foreach (cell, source->relationOids)
		if (get_rel_persistence(lfirst_oid(cell)) == RELPERSISTENCE_TEMP)
			traits.personal = true;
	/* A policy may look at anything. */
	if (source->dependsOnRLS)
		traits.personal = true;
	answer->by_settings = traits.by_settings;
	answer->personal = traits.personal;
}

/*
 * The plan is made valid first: functions may have been replaced and policies
 * added since it was kept, and what we examine is what will be executed.
 */
void
check_plan(SPIPlanPtr plan, bool allow_volatile, QueryAnswer *answer)
{
	List *sources = SPI_plan_get_plan_sources(plan);

	if (list_length(sources) != 1)
		ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR),
		                errmsg("the query of a cache entry must be exactly one statement")));

	auto *source = static_cast<CachedPlanSource *>(linitial(sources));

	/* Without a rewritten query there is nothing to run: DO INSTEAD NOTHING, or a lone semicolon.
	 */
	if (list_length(source->query_list) != 1)
		refuse_writing();

	Query *query = linitial_node(Query, source->query_list);

	if (query->commandType == CMD_SELECT && !query->hasModifyingCTE)
	{
		CachedPlan *cached = SPI_plan_get_cached_plan(plan);

		if (cached != nullptr)
			ReleaseCachedPlan(cached, source->is_saved ? CurrentResourceOwner : nullptr);
	}
	examine(source, allow_volatile, answer);
}

} /* namespace cache_ext::cache */
