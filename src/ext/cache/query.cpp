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
#include "ext/cache/query.hpp"

#include "ext/cache/json_rows.hpp"
#include "ext/cache/query_plans.hpp"
#include "ext/cache/query_traits.hpp"

extern "C" {
#include "access/xact.h"
#include "tcop/dest.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
}

namespace cache_ext::cache {

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
 *
 * Planning runs functions, too, where it folds constants.  They may ask for other
 * entries, so the plan is kept from the beginning, and may read only as well.
 */
static void
check_and_execute(SPIPlanPtr plan, KeptPlan *kept, const QueryCall &call, QueryAnswer *answer)
{
	bool read_only_before = XactReadOnly;

	if (kept != nullptr)
		++kept->users;
	PG_TRY();
	{
		XactReadOnly = true;
		check_plan(plan, call.allow_volatile, answer);
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
	plan = kept != nullptr ? kept->plan : prepare_query(call);
	check_and_execute(plan, kept, call, answer);
	SPI_finish();
	bring_back(call.run_as, aside);
}

List *
relations_of_query(const QueryCall &call)
{
	MemoryContext caller = CurrentMemoryContext;
	Aside aside = put_aside(call.run_as);

	SPI_connect();

	List *sources = SPI_plan_get_plan_sources(prepare_query(call));
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

	SPIPlanPtr plan = prepare_query(call);

	check_plan(plan, call.allow_volatile, answer);
	for (int i = 0; i < call.argument_count; ++i)
		types[i] = SPI_getargtypeid(plan, i);
	SPI_finish();
	bring_back(call.run_as, aside);
	return types;
}

} /* namespace cache_ext::cache */
