/*-------------------------------------------------------------------------
 *
 * query.cpp
 *		Running the query behind a cache entry; see query.hpp.
 *
 * The query runs through SPI with a plan that the backend keeps, and each row
 * goes straight from the executor into the JSON text: no tuple store, no second
 * copy.  It is executed as it stands, not pasted into another query, so its
 * text cannot break out of anything.
 *
 * Plain C in spirit: everything lives in memory contexts, errors pass through.
 *
 *-------------------------------------------------------------------------
 */
#include "core/base/digest.hpp"
#include "ext/cache/json_rows.hpp"
#include "ext/cache/query.hpp"

extern "C" {
#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "nodes/primnodes.h"
#include "optimizer/optimizer.h"
#include "parser/analyze.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/resowner.h"
}

namespace cache_ext::cache {

/* -------------------------------------------------------------------------
 * Kept plans
 * -------------------------------------------------------------------------
 */

constexpr int kMaxPlans = 64;
constexpr size_t kMaxKeptQuery = 64 * 1024;

struct KeptPlan
{
	Digest key; /* of text and types; the text itself is compared as well */
	char *text;
	SPIPlanPtr plan;
	uint64 last_use;
	int users; /* executions under way: such a plan is not dropped */
};

static HTAB *plans = nullptr;
static uint64 uses = 0;

static void
make_plan_table()
{
	HASHCTL control;

	memset(&control, 0, sizeof(control));
	control.keysize = sizeof(Digest);
	control.entrysize = sizeof(KeptPlan);
	plans = hash_create("cache_ext query plans", kMaxPlans, &control, HASH_ELEM | HASH_BLOBS);
}

static void
forget_plan(KeptPlan *kept)
{
	Digest key = kept->key;

	SPI_freeplan(kept->plan);
	pfree(kept->text);
	hash_search(plans, &key, HASH_REMOVE, nullptr);
}

/* Make room by dropping the plan not used for the longest time; false when all are in use. */
static bool
make_room()
{
	HASH_SEQ_STATUS scan;
	KeptPlan *oldest = nullptr;

	if (hash_get_num_entries(plans) < kMaxPlans)
		return true;
	hash_seq_init(&scan, plans);
	while (auto *each = static_cast<KeptPlan *>(hash_seq_search(&scan)))
		if (each->users == 0 && (oldest == nullptr || each->last_use < oldest->last_use))
			oldest = each;
	if (oldest != nullptr)
		forget_plan(oldest);
	return oldest != nullptr;
}

/* The types of $1, $2, ... as the query uses them; text for what it does not use. */
static Oid *
infer_types(const QueryCall &call)
{
	List *statements = pg_parse_query(call.text);
	Oid *types = nullptr;
	int count = 0;

	if (list_length(statements) == 1)
		(void) parse_analyze_varparams(linitial_node(RawStmt, statements), call.text, &types,
		                               &count, nullptr);
	if (count > call.argument_count)
		ereport(ERROR,
		        (errcode(ERRCODE_UNDEFINED_PARAMETER), errmsg("there is no parameter $%d", count),
		         errdetail("The query has %d arguments.", call.argument_count)));

	auto *all = static_cast<Oid *>(palloc(sizeof(Oid) * Max(call.argument_count, 1)));

	for (int i = 0; i < call.argument_count; ++i)
		all[i] = i < count && OidIsValid(types[i]) && types[i] != UNKNOWNOID ? types[i] : TEXTOID;
	return all;
}

static SPIPlanPtr
prepare(const QueryCall &call)
{
	const Oid *types =
	    call.types != nullptr || call.argument_count == 0 ? call.types : infer_types(call);
	SPIPlanPtr plan = SPI_prepare_cursor(call.text, call.argument_count, const_cast<Oid *>(types),
	                                     CURSOR_OPT_PARALLEL_OK);

	if (plan == nullptr)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
		                errmsg("could not prepare the query of a cache entry: %s",
		                       SPI_result_code_string(SPI_result))));
	return plan;
}

static Digest
plan_key(const QueryCall &call, size_t length)
{
	Digester digester;

	digester.add(std::string_view(call.text, length));
	digester.add(static_cast<uint64>(call.argument_count));
	for (int i = 0; call.types != nullptr && i < call.argument_count; ++i)
		digester.add(uint64{call.types[i]});
	return digester.finish();
}

/* The kept plan of the query, or a null pointer when this one is not to be kept. */
static KeptPlan *
find_or_keep_plan(const QueryCall &call)
{
	size_t length = strlen(call.text);
	Digest key = plan_key(call, length);
	KeptPlan *kept;

	if (length > kMaxKeptQuery)
		return nullptr;
	if (plans == nullptr)
		make_plan_table();

	kept = static_cast<KeptPlan *>(hash_search(plans, &key, HASH_FIND, nullptr));
	if (kept != nullptr && strcmp(kept->text, call.text) == 0)
	{
		kept->last_use = ++uses;
		return kept;
	}
	if (kept != nullptr || !make_room())
		return nullptr;

	SPIPlanPtr plan = prepare(call);
	char *text = MemoryContextStrdup(TopMemoryContext, call.text);

	if (SPI_keepplan(plan) != 0)
		elog(ERROR, "could not keep the plan of a cache entry's query");
	kept = static_cast<KeptPlan *>(hash_search(plans, &key, HASH_ENTER, nullptr));
	kept->text = text;
	kept->plan = plan;
	kept->users = 0;
	kept->last_use = ++uses;
	return kept;
}

/* -------------------------------------------------------------------------
 * What kind of query it is
 * -------------------------------------------------------------------------
 */

struct Traits
{
	bool by_settings;
	bool personal;
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
	Traits traits = {false, false};
	Query *query = linitial_node(Query, source->query_list);
	ListCell *cell;

	if (query->commandType == CMD_UTILITY)
		refuse_utility(query->utilityStmt);
	if (query->commandType != CMD_SELECT || query->hasModifyingCTE || query->rowMarks != NIL)
		refuse_writing();
	if (!allow_volatile && contain_volatile_functions(reinterpret_cast<Node *>(query)))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		                errmsg("the query of a cache entry uses a volatile function"),
		                errdetail("Its result may change without any table changing."),
		                errhint("Give a ttl to accept that the cached result is up to that old.")));

	(void) note_traits(reinterpret_cast<Node *>(query), &traits);
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
static void
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

/* -------------------------------------------------------------------------
 * Arguments
 * -------------------------------------------------------------------------
 */

/* An argument as a value of its type; whatever the type has against it is 22P02. */
static Datum
convert(const char *text, Oid type, int number)
{
	MemoryContext context = CurrentMemoryContext;
	Oid function;
	Oid element;
	Datum value = 0;

	getTypeInputInfo(type, &function, &element);
	PG_TRY();
	{
		value = OidInputFunctionCall(function, const_cast<char *>(text), element, -1);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);

		ErrorData *error = CopyErrorData();

		if (ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_DATA_EXCEPTION)
			PG_RE_THROW();
		FlushErrorState();
		ereport(ERROR, (errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
		                errmsg("argument $%d of the query of a cache entry is no %s", number,
		                       format_type_be(type)),
		                errdetail_internal("%s", error->message)));
	}
	PG_END_TRY();
	return value;
}

struct Bound
{
	Datum *values;
	char *nulls;
};

static Bound
bind(SPIPlanPtr plan, const QueryCall &call)
{
	Bound bound;

	bound.values = static_cast<Datum *>(palloc(sizeof(Datum) * (call.argument_count + 1)));
	bound.nulls = static_cast<char *>(palloc0(static_cast<Size>(call.argument_count) + 1));
	for (int i = 0; i < call.argument_count; ++i)
	{
		bool null = call.arguments[i] == nullptr;

		bound.nulls[i] = null ? 'n' : ' ';
		bound.values[i] = null ? 0 : convert(call.arguments[i], SPI_getargtypeid(plan, i), i + 1);
	}
	return bound;
}

/* -------------------------------------------------------------------------
 * Running
 * -------------------------------------------------------------------------
 */

static void
execute(SPIPlanPtr plan, const QueryCall &call, QueryAnswer *answer)
{
	JsonReceiver receiver;
	SPIExecuteOptions options;
	int result;

	prepare_receiver(&receiver, call, &answer->json);
	memset(&options, 0, sizeof(options));
	options.read_only = true;
	options.must_return_tuples = true;
	options.dest = &receiver.base;
	if (call.argument_count > 0)
	{
		Bound bound = bind(plan, call);

		options.params = makeParamList(call.argument_count);
		for (int i = 0; i < call.argument_count; ++i)
		{
			ParamExternData *parameter = &options.params->params[i];

			parameter->value = bound.values[i];
			parameter->isnull = bound.nulls[i] == 'n';
			parameter->pflags = PARAM_FLAG_CONST;
			parameter->ptype = SPI_getargtypeid(plan, i);
		}
	}

	appendStringInfoChar(&answer->json, '[');
	result = SPI_execute_plan_extended(plan, &options);
	if (result < 0)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
		                errmsg("could not run the query of a cache entry: %s",
		                       SPI_result_code_string(result))));
	appendStringInfoChar(&answer->json, ']');
	answer->rows = receiver.rows;
}

/*
 * Functions called by the query are held to reading as well: the transaction
 * is read-only meanwhile.  An error aborts the (sub)transaction, which puts
 * XactReadOnly back as it was at its start; PG_FINALLY does so before that.
 */
static void
execute_reading_only(SPIPlanPtr plan, KeptPlan *kept, const QueryCall &call, QueryAnswer *answer)
{
	bool read_only_before = XactReadOnly;

	if (kept != nullptr)
		++kept->users;
	PG_TRY();
	{
		XactReadOnly = true;
		execute(plan, call, answer);
	}
	PG_FINALLY();
	{
		XactReadOnly = read_only_before;
		if (kept != nullptr)
			--kept->users;
	}
	PG_END_TRY();
}

/*
 * The caller's role and settings, put aside while a loader's own hold.  An error
 * ends the (sub)transaction, which puts them back as well.
 */
struct Aside
{
	Oid role;
	int security;
	int nest_level;
};

static Aside
put_aside(const RunAs *run_as)
{
	Aside aside = {InvalidOid, 0, 0};

	if (run_as == nullptr)
		return aside;
	GetUserIdAndSecContext(&aside.role, &aside.security);
	SetUserIdAndSecContext(run_as->role, aside.security | SECURITY_LOCAL_USERID_CHANGE |
	                                         SECURITY_RESTRICTED_OPERATION);
	aside.nest_level = NewGUCNestLevel();
	for (int i = 0; i < run_as->count; ++i)
		(void) set_config_option(run_as->names[i], run_as->values[i], PGC_USERSET, PGC_S_SESSION,
		                         GUC_ACTION_SAVE, true, 0, false);
	return aside;
}

static void
bring_back(const RunAs *run_as, const Aside &aside)
{
	if (run_as == nullptr)
		return;
	AtEOXact_GUC(false, aside.nest_level);
	SetUserIdAndSecContext(aside.role, aside.security);
}

void
run_query(const QueryCall &call, QueryAnswer *answer)
{
	KeptPlan *kept;
	SPIPlanPtr plan;
	Aside aside = put_aside(call.run_as);

	initStringInfo(&answer->json);
	SPI_connect();
	kept = find_or_keep_plan(call);
	plan = kept != nullptr ? kept->plan : prepare(call);
	check_plan(plan, call.allow_volatile, answer);
	execute_reading_only(plan, kept, call, answer);
	SPI_finish();
	bring_back(call.run_as, aside);
}

List *
relations_of_query(const QueryCall &call)
{
	MemoryContext caller = CurrentMemoryContext;
	Aside aside = put_aside(call.run_as);

	SPI_connect();

	List *sources = SPI_plan_get_plan_sources(prepare(call));
	MemoryContext before = MemoryContextSwitchTo(caller);
	List *relations =
	    sources == NIL
	        ? NIL
	        : list_copy(static_cast<CachedPlanSource *>(linitial(sources))->relationOids);

	MemoryContextSwitchTo(before);
	SPI_finish();
	bring_back(call.run_as, aside);
	return relations;
}

Oid *
check_query(const QueryCall &call, QueryAnswer *answer)
{
	auto *types = static_cast<Oid *>(palloc(sizeof(Oid) * Max(call.argument_count, 1)));
	Aside aside = put_aside(call.run_as);

	SPI_connect();

	SPIPlanPtr plan = prepare(call);

	check_plan(plan, call.allow_volatile, answer);
	for (int i = 0; i < call.argument_count; ++i)
		types[i] = SPI_getargtypeid(plan, i);
	SPI_finish();
	bring_back(call.run_as, aside);
	return types;
}

} /* namespace cache_ext::cache */
