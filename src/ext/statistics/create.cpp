/*-------------------------------------------------------------------------
 *
 * create.cpp
 *		Creating, refreshing and dropping statistics.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/capture.hpp"
#include "ext/statistics/fill.hpp"
#include "ext/statistics/fold.hpp"
#include "ext/statistics/lost_index.hpp"
#include "ext/statistics/relations.hpp"
#include "ext/statistics/restore.hpp"
#include "ext/statistics/sources.hpp"
#include "ext/statistics/triggers.hpp"
#include "ext/statistics/used_functions.hpp"
#include "ext/statistics/verify.hpp"
#include "ext/worker.hpp"
#include "pg/guard.hpp"
#include "pg/maintenance_lock.hpp"
#include "pg/memory.hpp"

extern "C" {
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "commands/tablecmds.h"
#include "commands/view.h"
#include "executor/spi.h"
#include "nodes/makefuncs.h"
#include "rewrite/rewriteHandler.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"
}

namespace cache_ext::statistics {

/* ---- arguments ---- */

static text *
required_text(FunctionCallInfo fcinfo, int number, const char *name)
{
	if (PG_ARGISNULL(number))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
		                errmsg("argument \"%s\" must not be null", name)));
	return PG_GETARG_TEXT_PP(number);
}

Oid
required_relation(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
		                errmsg("argument \"relation\" must not be null")));
	return PG_GETARG_OID(0);
}

static void
require_fresh_snapshot(const char *what)
{
	PreventCommandIfReadOnly(what);
	PreventCommandDuringRecovery(what);
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_TRANSACTION_STATE),
		         errmsg("%s cannot run in a REPEATABLE READ or SERIALIZABLE transaction", what),
		         errdetail("It needs rows that are newer than the transaction's snapshot."),
		         errhint("Run it in a READ COMMITTED transaction.")));
}

bool
find_restored(Oid relation, StatisticRow *row)
{
	ListCell *cell;

	foreach (cell, restored_statistics())
	{
		*row = *static_cast<StatisticRow *>(lfirst(cell));
		if (row->relation == relation)
			return true;
	}
	return false;
}

StatisticRow
statistic_of(Oid relation)
{
	StatisticRow row;
	char *name = get_rel_name(relation);

	if (find_statistic_by_relation(relation, &row))
		return row;
	if (find_restored(relation, &row))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		                errmsg("statistic \"%s\" was restored and is not taken up yet", name),
		                errdetail("Until then it answers by running its query."),
		                errhint("Call statistics_wait() or statistics_refresh().")));
	ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
	                errmsg("\"%s\" is not a statistic", name ? name : "?"),
	                errhint("The view statistics_status lists the statistics.")));
}

static void
check_owner(const StatisticRow &row)
{
#if PG_VERSION_NUM >= 160000
	bool owner = object_ownercheck(RelationRelationId, row.relation, GetUserId());
#else
	bool owner = pg_class_ownercheck(row.relation, GetUserId());
#endif
	if (!owner)
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_VIEW, get_rel_name(row.relation));
}

/* ---- the query as a view ---- */

static RangeVar *
range_var(text *name)
{
#if PG_VERSION_NUM >= 160000
	List *names = stringToQualifiedNameList(text_to_cstring(name), nullptr);
#else
	List *names = stringToQualifiedNameList(text_to_cstring(name));
#endif
	return makeRangeVarFromNameList(names);
}

static RawStmt *
parse_query(const char *query)
{
	List *statements = pg_parse_query(query);

	if (list_length(statements) != 1)
		ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR),
		                errmsg("the query of a statistic must be one statement"),
		                errhint("Create a statistic for each query.")));

	auto *raw = linitial_node(RawStmt, statements);
	if (!IsA(raw->stmt, SelectStmt) || ((SelectStmt *) raw->stmt)->intoClause != nullptr)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		                errmsg("the query of a statistic must be a SELECT"),
		                errdetail("A statistic is a relation that equals its query."),
		                errhint("Pass the SELECT that the dashboard runs.")));
	return raw;
}

/* As the caller: names, privileges and dependencies are those of CREATE VIEW. */
static Oid
define_view(RangeVar *name, const char *query)
{
	RawStmt *raw = parse_query(query);
	ViewStmt *statement = makeNode(ViewStmt);

	statement->view = name;
	statement->query = raw->stmt;
	statement->withCheckOption = NO_CHECK_OPTION;
	ObjectAddress view = DefineView(statement, query, raw->stmt_location, raw->stmt_len);
	CommandCounterIncrement();
	return view.objectId;
}

static void
check_sources(List *sources)
{
	ListCell *cell;

	foreach (cell, sources)
	{
		AclResult result = pg_class_aclcheck(lfirst_oid(cell), GetUserId(), ACL_SELECT);

		if (result != ACLCHECK_OK)
			aclcheck_error(result, OBJECT_TABLE, get_rel_name(lfirst_oid(cell)));
	}
}

/* ---- the functions ---- */

/* As the user's command, so that everything happens that DROP VIEW does. */
static void
drop(const StatisticRow &row)
{
	char *command = psprintf("DROP VIEW %s", qualified_name(row.relation));

	SPI_connect();
	if (SPI_execute(command, false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not execute \"%s\"", command);
	SPI_finish();
}

static void
drop_for_replacement(RangeVar *name)
{
	Oid existing = RangeVarGetRelid(name, NoLock, true);
	StatisticRow row;

	if (!OidIsValid(existing))
		return;
	if (!find_statistic_by_relation(existing, &row))
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
		                errmsg("\"%s\" is not a statistic", name->relname),
		                errhint("replace => true replaces statistics only.")));
	check_owner(row);
	drop(row);
}

Oid
relation_owner(Oid relation)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relation);
	Oid owner = reinterpret_cast<Form_pg_class>(GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* A number that neither a statistic of ours nor a restored one has. */
static int32
free_number()
{
	for (;;)
	{
		int32 id = next_number("statistic_id");

		if (!OidIsValid(internal_relation(psprintf("cache_ext_query_%d", id), true)) &&
		    !OidIsValid(internal_relation(psprintf("state_%d", id), true)))
			return id;
	}
}

static void
require_triggers(List *sources)
{
	ListCell *cell;

	foreach (cell, sources)
	{
		char *trouble = trigger_trouble(lfirst_oid(cell));

		if (trouble != nullptr)
			ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			                errmsg("changes to table \"%s\" are not noticed",
			                       get_rel_name(lfirst_oid(cell))),
			                errdetail("The %s.", trouble),
			                errhint("Enable it, or run statistics_refresh() on a statistic of the "
			                        "table, which puts its triggers right.")));
	}
}

/* A statement of this session that is writing a table will only tell its triggers when it ends. */
static void
require_not_in_use(List *sources, const char *what)
{
	ListCell *cell;
	ListCell *inner;

	foreach (cell, sources)
		foreach (inner, find_all_inheritors(lfirst_oid(cell), AccessShareLock, nullptr))
		{
			Relation member = table_open(lfirst_oid(inner), NoLock);

			CheckTableNotInUse(member, what);
			table_close(member, NoLock);
		}
}

static Oid
create(RangeVar *name, const char *query, bool concurrently, bool replace)
{
	ListCell *cell;
	StatisticRow row = {};
	Oid caller = GetUserId();

	require_fresh_snapshot("statistics_create()");
	if (replace)
		drop_for_replacement(name);
	row.query = define_view(name, query);

	char *schema = get_namespace_name(get_rel_namespace(row.query));
	char *relname = get_rel_name(row.query);
	Relation view = table_open(row.query, AccessShareLock);
	Definition *sketch = analyze(get_view_query(view), CurrentMemoryContext, true);
	List *sources = source_relations(sketch);
	table_close(view, NoLock);
	check_sources(sources);
	if (!concurrently)
		require_not_in_use(sources, "create a statistic of");
	foreach (cell, sources)
		(void) ensure_source(lfirst_oid(cell));
	require_triggers(sources);

	AsOwner owner(internal_owner());
	row.id = free_number();
	run("ALTER VIEW %s RENAME TO cache_ext_query_%d", quote_qualified_identifier(schema, relname),
	    row.id);
	run("ALTER VIEW %s SET SCHEMA cache_ext_internal",
	    quote_qualified_identifier(schema, psprintf("cache_ext_query_%d", row.id)));
	create_relations(&row, schema, relname);
	run("ALTER VIEW %s OWNER TO %s", quote_qualified_identifier(schema, relname),
	    quote_identifier(GetUserNameFromId(caller, false)));
	owner.restore();
	establish(row, sketch);

	if (!concurrently)
	{
		PushActiveSnapshot(GetLatestSnapshot());
		fill(definition_of(row.id));
		PopActiveSnapshot();
	}
	return row.relation;
}

static List *
source_rows(int32 statistic)
{
	ListCell *cell;
	List *rows = NIL;

	foreach (cell, sources_of_statistic(statistic))
	{
		auto *row = static_cast<SourceRow *>(palloc(sizeof(SourceRow)));

		if (find_source(lfirst_int(cell), row))
			rows = lappend(rows, row);
	}
	return rows;
}

/* Give the tables what they lack, and let fire what somebody has disabled. */
static void
mend_sources(List *sources)
{
	ListCell *cell;
	ListCell *inner;
	AsOwner owner(internal_owner());

	foreach (cell, sources)
	{
		if (trigger_trouble(lfirst_oid(cell)) == nullptr)
			continue;
		lock_sources(list_make1_oid(lfirst_oid(cell)), ShareRowExclusiveLock);
		foreach (inner, find_all_inheritors(lfirst_oid(cell), NoLock, nullptr))
		{
			create_member_triggers(lfirst_oid(inner));
			mend_member_triggers(lfirst_oid(inner), true);
		}
	}
	CommandCounterIncrement();
	owner.restore();
}

static void
refresh(Oid relation, bool concurrently)
{
	StatisticRow row;
	bool restored = find_restored(relation, &row);

	require_fresh_snapshot("statistics_refresh()");
	if (!restored)
		row = statistic_of(relation);
	check_owner(row);
	if (restored)
		(void) take_up(row, true);

	Definition *definition = existing_definition(row);
	List *relations = source_relations(definition);

	mend_sources(relations);
	forget_compiled_statistic(row.id);
	forget_failure(row.id);
	forget_verdict(row.id);
	if (concurrently)
	{
		unfill(row.id);
		return;
	}
	require_not_in_use(relations, "refresh a statistic of");
	lock_sources(relations, ShareRowExclusiveLock);
	(void) pg::take_maintenance_lock(pg::Maintenance::kFilling, true);
	(void) pg::take_maintenance_lock(pg::Maintenance::kFolding, true);
	while (fold_sources(source_rows(row.id)) > 0)
		;
	CommandCounterIncrement();
	/* The worker may have filled it, and made a part, while the locks were waited for. */
	definition = add_missing_parts(existing_definition(row));
	PushActiveSnapshot(GetLatestSnapshot());
	fill_anew(definition);
	PopActiveSnapshot();
}

extern "C" {

PG_FUNCTION_INFO_V1(cache_ext_statistics_create);
PG_FUNCTION_INFO_V1(cache_ext_statistics_drop);
PG_FUNCTION_INFO_V1(cache_ext_statistics_refresh);
PG_FUNCTION_INFO_V1(cache_ext_statistics_fold);

Datum
cache_ext_statistics_create(PG_FUNCTION_ARGS)
{
	text *name = required_text(fcinfo, 0, "name");
	text *query = required_text(fcinfo, 1, "query");
	bool concurrently = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	bool replace = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3);

	PG_RETURN_OID(pg::guard(
	    [&] { return create(range_var(name), text_to_cstring(query), concurrently, replace); }));
}

Datum
cache_ext_statistics_drop(PG_FUNCTION_ARGS)
{
	Oid relation = PG_GETARG_OID(0);

	pg::guard([&] {
		StatisticRow row;

		if (!find_restored(relation, &row))
			row = statistic_of(relation);
		check_owner(row);
		drop(row);
	});
	PG_RETURN_VOID();
}

Datum
cache_ext_statistics_refresh(PG_FUNCTION_ARGS)
{
	Oid relation = required_relation(fcinfo);

	bool concurrently = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);

	pg::guard([&] { refresh(relation, concurrently); });
	PG_RETURN_VOID();
}

Datum
cache_ext_statistics_fold(PG_FUNCTION_ARGS)
{
	bool all = PG_ARGISNULL(0);
	Oid relation = all ? InvalidOid : PG_GETARG_OID(0);

	require_fresh_snapshot("statistics_fold()");
	PG_RETURN_INT64(pg::guard([&] {
		(void) pg::take_maintenance_lock(pg::Maintenance::kFilling, true);
		(void) pg::take_maintenance_lock(pg::Maintenance::kFolding, true);
		return fold_sources(all ? all_sources() : source_rows(statistic_of(relation).id));
	}));
}
}

} /* namespace cache_ext::statistics */
