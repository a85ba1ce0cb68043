/*-------------------------------------------------------------------------
 *
 * session.cpp
 *		A session's side: counting itself in before it commits, waking, making room.
 *
 * A transaction that leaves work behind says so before it commits, and the worker
 * does not go until that is settled.  Commands that need a database for themselves
 * ask its worker to leave first (where the library is preloaded, so that every
 * session has the hook).
 *
 *-------------------------------------------------------------------------
 */
#include "ext/worker.hpp"
#include "ext/worker/confirmation.hpp"
#include "ext/worker/start.hpp"
#include "pg/redis_link.hpp"
#include "pg/settings.hpp"
#include "pg/worker_table.hpp"

extern "C" {
#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(cache_ext_worker_pid);
}

namespace cache_ext::worker {

namespace {

pg::WorkerSlot *counted = nullptr; /* this transaction is counted in there */
uint32 counted_work = 0;           /* what its commit leaves to do */
ProcessUtility_hook_type previous_utility = nullptr;
constexpr const char *kSettings = "cache_ext."; /* what the names of ours begin with */

/* Start the current database's worker after expect_worker() has asked for it. */
void
start_expected(pg::WorkerSlot *slot)
{
	static TimestampTz said = 0;
	bool success = start_worker(MyDatabaseId, false, nullptr);

	pg::worker_started(slot, success);
	if (!success && TimestampDifferenceExceeds(said, GetCurrentTimestamp(), kLogAgainMs))
	{
		said = GetCurrentTimestamp();
		ereport(LOG, (errmsg("could not start the background worker of cache_ext"),
		              errdetail("Committed changes wait for it; they are safe."),
		              errhint("Consider increasing max_worker_processes.")));
	}
}

void
on_transaction(XactEvent event, void *)
{
	if (counted == nullptr)
	{
		if (event != XACT_EVENT_PRE_COMMIT && event != XACT_EVENT_PRE_PREPARE)
			counted_work = 0;
		return;
	}
	switch (event)
	{
	case XACT_EVENT_COMMIT:
		number_commit(counted); /* first: who is counted in keeps the slot */
		pg::settle_expectation(counted, counted_work);
		counted = nullptr;
		break;
	case XACT_EVENT_PREPARE:
	case XACT_EVENT_PARALLEL_COMMIT:
		forget_confirmation();
		pg::settle_expectation(counted, counted_work);
		counted = nullptr;
		break;
	case XACT_EVENT_ABORT:
	case XACT_EVENT_PARALLEL_ABORT:
		forget_confirmation();
		pg::settle_expectation(counted, 0);
		counted = nullptr;
		break;
	case XACT_EVENT_PRE_COMMIT:
	case XACT_EVENT_PRE_PREPARE:
	case XACT_EVENT_PARALLEL_PRE_COMMIT:
		break;
	}
}

static bool
may_create_databases()
{
	HeapTuple role = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));

	if (!HeapTupleIsValid(role))
		return false;

	bool may = superuser() || reinterpret_cast<Form_pg_authid>(GETSTRUCT(role))->rolcreatedb;

	ReleaseSysCache(role);
	return may;
}

static bool
is_template(Oid database)
{
	HeapTuple tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));

	if (!HeapTupleIsValid(tuple))
		return false;

	bool is_one = reinterpret_cast<Form_pg_database>(GETSTRUCT(tuple))->datistemplate;

	ReleaseSysCache(tuple);
	return is_one;
}

/* The database that a command needs for itself, or an invalid one. */
Oid
wanted_database(const Node *statement)
{
	const char *name = nullptr;
	bool owners_only = true;

	if (IsA(statement, DropdbStmt))
		name = castNode(DropdbStmt, const_cast<Node *>(statement))->dbname;
	else if (IsA(statement, RenameStmt))
	{
		auto *rename = castNode(RenameStmt, const_cast<Node *>(statement));

		if (rename->renameType == OBJECT_DATABASE)
			name = rename->subname;
	}
	else if (IsA(statement, AlterDatabaseStmt))
		name = castNode(AlterDatabaseStmt, const_cast<Node *>(statement))->dbname;
	else if (IsA(statement, CreatedbStmt))
	{
		ListCell *cell;

		owners_only = false;
		name = "template1";
		foreach (cell, castNode(CreatedbStmt, const_cast<Node *>(statement))->options)
		{
			auto *option = lfirst_node(DefElem, cell);

			if (strcmp(option->defname, "template") == 0 && option->arg != nullptr)
				name = defGetString(option);
		}
	}
	if (name == nullptr)
		return InvalidOid;

	Oid database = get_database_oid(name, true);

	if (!OidIsValid(database))
		return InvalidOid;
#if PG_VERSION_NUM >= 160000
	bool owns = object_ownercheck(DatabaseRelationId, database, GetUserId());
#else
	bool owns = pg_database_ownercheck(database, GetUserId());
#endif
	bool may = owners_only ? owns : may_create_databases() && (owns || is_template(database));

	return may ? database : InvalidOid;
}

/*
 * A worker looks at its database's settings, and stays for some seconds, in
 * which the change commits.
 */
void
tell_of_setting(const AlterDatabaseSetStmt *statement)
{
	const char *name = statement->setstmt->name;
	Oid database = get_database_oid(statement->dbname, true);

	if (OidIsValid(database) &&
	    (name == nullptr || pg_strncasecmp(name, kSettings, strlen(kSettings)) == 0))
		pg::mark_work_of(database, pg::kWorkWarming);
}

void
on_utility(PlannedStmt *planned, const char *query, bool read_only, ProcessUtilityContext context,
           ParamListInfo params, QueryEnvironment *environment, DestReceiver *dest,
           QueryCompletion *completion)
{
	Oid database = wanted_database(planned->utilityStmt);

	if (OidIsValid(database))
		pg::ask_worker_to_leave(database);

	const Node *statement = planned->utilityStmt;
	bool ends_prepared =
	    IsA(statement, TransactionStmt) &&
	    reinterpret_cast<const TransactionStmt *>(statement)->kind == TRANS_STMT_COMMIT_PREPARED;

	if (previous_utility != nullptr)
		previous_utility(planned, query, read_only, context, params, environment, dest, completion);
	else
		standard_ProcessUtility(planned, query, read_only, context, params, environment, dest,
		                        completion);

	if (IsA(statement, AlterDatabaseSetStmt))
		tell_of_setting(castNode(AlterDatabaseSetStmt, const_cast<Node *>(statement)));

	/* What it made visible was queued by a transaction that nobody is in any more. */
	if (ends_prepared)
	{
		pg::WorkerSlot *slot = pg::my_worker_slot();
		bool wait = pg::invalidation_mode == pg::kInvalidationSync && pg::redis_configured() &&
		            slot != nullptr;

		/* The number first: a worker that is awake already is to know of it. */
		if (wait)
			number_prepared(slot);
		wake(Work::kOutbox);
		if (wait)
			await_prepared();
	}
}

uint32
work_bit(Work work)
{
	switch (work)
	{
	case Work::kOutbox:
		return pg::kWorkOutbox;
	case Work::kFilling:
		return pg::kWorkFilling;
	case Work::kSessions:
		return pg::kWorkSessions;
	case Work::kPartialRows:
		break;
	}
	return pg::kWorkPartialRows;
}

} /* namespace */

void
register_session_hooks()
{
	RegisterXactCallback(on_transaction, nullptr);
	register_confirmation();
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = on_utility;
}

void
note_committed_changes_soon(Work work)
{
	if (is_worker)
		return;
	counted_work |= work_bit(work);
	if (counted != nullptr)
		return;

	pg::WorkerSlot *slot = pg::my_worker_slot();

	if (slot == nullptr)
		return;

	bool start = pg::expect_worker(slot);

	counted = slot;
	if (start)
		start_expected(slot);
}

void
confirm_commit(bool sweeps)
{
	if (counted != nullptr)
		want_confirmation(sweeps);
	else
		ereport(WARNING, (errmsg("cannot wait until Redis has confirmed the invalidations"),
		                  errdetail("More databases use cache_ext at once than it has room for.")));
}

void
wake(Work work)
{
	pg::WorkerSlot *slot = is_worker ? nullptr : pg::my_worker_slot();

	if (slot == nullptr)
		return;

	bool start = pg::expect_worker(slot);

	pg::settle_expectation(slot, work_bit(work));
	if (start)
		start_expected(slot);
}

int
running_pid()
{
	pg::WorkerSlot *slot = pg::my_worker_slot();

	return slot == nullptr ? 0 : pg::worker_pid(slot);
}

} /* namespace cache_ext::worker */

extern "C" Datum
cache_ext_worker_pid(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	int pid = cache_ext::worker::running_pid();

	if (pid == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT32(pid);
}
