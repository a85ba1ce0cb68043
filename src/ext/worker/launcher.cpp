/*-------------------------------------------------------------------------
 *
 * launcher.cpp
 *		The launcher of workers.
 *
 * It is there only with shared_preload_libraries.  After a start, a crash or a
 * promotion it runs a worker once in every database, since partial rows and
 * undelivered rows may be left from before; where the extension is not installed,
 * the worker leaves at once.  It also keeps the list of the hottest cache keys of
 * all databases (ext/cache/hot_list.hpp), and knows when a worker is due.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/cache/hot_list.hpp"
#include "ext/worker/start.hpp"
#include "ext/worker/agenda.hpp"
#include "pg/guard.hpp"
#include "pg/worker_table.hpp"

extern "C" {
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/backend_status.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"

PGDLLEXPORT void cache_ext_launcher_main(Datum unused);
}

namespace cache_ext::worker {

constexpr int kLauncherMs = 5000; /* between looks for databases without their worker */

namespace {

cache::HotKeeper *keeper = nullptr;

/* The databases that workers could connect to. */
List *
connectable_databases(MemoryContext context)
{
	List *databases = NIL;

	StartTransactionCommand();

	Relation catalog = table_open(DatabaseRelationId, AccessShareLock);
	TableScanDesc scan = table_beginscan_catalog(catalog, 0, nullptr);

	for (HeapTuple tuple = heap_getnext(scan, ForwardScanDirection); tuple != nullptr;
	     tuple = heap_getnext(scan, ForwardScanDirection))
	{
		auto *database = reinterpret_cast<Form_pg_database>(GETSTRUCT(tuple));

		if (!database->datallowconn)
			continue;

		MemoryContext caller = MemoryContextSwitchTo(context);

		databases = lappend_oid(databases, database->oid);
		MemoryContextSwitchTo(caller);
	}
	table_endscan(scan);
	table_close(catalog, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return databases;
}

void
launcher_sleep(long ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_TIMEOUT, ms,
	                 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	if (ShutdownRequestPending)
	{
		pg::guard([] { keeper->save_last(); });
		proc_exit(1); /* should somebody have stopped us alone, we come back */
	}
}

/* Workers that left, or were never started, although work was committed. */
void
start_missing()
{
	Oid missing[pg::kWorkerSlots];
	int count = pg::databases_without_worker(missing, pg::kWorkerSlots);

	if (count == 0)
		return;

	List *databases = connectable_databases(TopMemoryContext);

	for (int i = 0; i < count; ++i)
	{
		if (list_member_oid(databases, missing[i]))
			(void) start_worker(missing[i], false, nullptr);
		else
		{
			pg::forget_database(missing[i]);
			forget_agenda(missing[i]);
		}
	}
	list_free(databases);
}

/* Work for the workers where something is due; returns how long nothing more will be. */
long
look_at_agenda()
{
	Oid due[pg::kWorkerSlots];
	TimestampTz next;
	int count = databases_with_agenda(due, pg::kWorkerSlots, &next);

	for (int i = 0; i < count; ++i)
		pg::mark_work_of(due[i], pg::kWorkWarming);
	return Min(TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next), kLauncherMs);
}

/* One after the other, so that a server with many databases needs one process at a time. */
void
look_everywhere()
{
	List *databases = connectable_databases(TopMemoryContext);
	ListCell *cell;

	foreach (cell, databases)
	{
		BackgroundWorkerHandle *handle;
		pid_t pid;

		while (!start_worker(lfirst_oid(cell), true, &handle))
			launcher_sleep(kSweepMs);
		if (WaitForBackgroundWorkerStartup(handle, &pid) == BGWH_POSTMASTER_DIED)
			proc_exit(1);
	}
	list_free(databases);
}

} /* namespace */

void
register_launcher()
{
	BackgroundWorker launcher = {};

	launcher.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	launcher.bgw_start_time = BgWorkerStart_RecoveryFinished;
	launcher.bgw_restart_time = 5;
	strlcpy(launcher.bgw_library_name, "cache_ext", sizeof(launcher.bgw_library_name));
	strlcpy(launcher.bgw_function_name, "cache_ext_launcher_main",
	        sizeof(launcher.bgw_function_name));
	strlcpy(launcher.bgw_name, "cache_ext launcher", sizeof(launcher.bgw_name));
	strlcpy(launcher.bgw_type, "cache_ext launcher", sizeof(launcher.bgw_type));
	RegisterBackgroundWorker(&launcher);
}

} /* namespace cache_ext::worker */

extern "C" void
cache_ext_launcher_main(Datum)
{
	using namespace cache_ext;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(nullptr, nullptr, 0);
	SetConfigOption("application_name", "cache_ext launcher", PGC_SUSET, PGC_S_OVERRIDE);
	pgstat_report_activity(STATE_IDLE, nullptr);

	worker::keeper =
	    new (MemoryContextAlloc(TopMemoryContext, sizeof(cache::HotKeeper))) cache::HotKeeper();
	pg::guard([] {
		for (Oid database : worker::keeper->begin())
			worker::expect_hottest(database);
	});
	worker::look_everywhere();
	for (long wait_ms = 0;;)
	{
		worker::launcher_sleep(wait_ms);
		pg::guard([] { worker::keeper->save_if_due(); });
		if (ConfigReloadPending)
		{
			/* Perhaps a Redis was configured that rows have been waiting for. */
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			worker::look_everywhere();
		}
		wait_ms = worker::look_at_agenda();
		worker::start_missing();
	}
}
