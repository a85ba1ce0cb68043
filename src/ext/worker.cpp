/*-------------------------------------------------------------------------
 *
 * worker.cpp
 *		The background worker of a database, and the launcher of workers.
 *
 * A worker is started by the first commit that leaves work behind and goes when
 * there has been none for some seconds, so that DROP DATABASE and CREATE
 * DATABASE ... TEMPLATE find the database free; while Redis is away or could
 * still forget what it was told it stays, and is asked to go by those commands
 * (where the library is preloaded, so that every session has the hook).
 *
 * It is a loop of verbs.  Each runs in transactions of its own, is safe to
 * repeat after a crash, and fails alone: its error is logged once, its
 * transaction rolled back and the verb left alone for a while.  The others go
 * on, and what the process knows (its connection to Redis, where a SCAN has
 * got to) is kept; leaving and being restarted would let one broken statistic
 * stop every invalidation.
 *
 * The launcher is there only with shared_preload_libraries.  After a start, a
 * crash or a promotion it runs a worker once in every database, since partial
 * rows and undelivered rows may be left from before; where the extension is
 * not installed, the worker leaves at once.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/worker.hpp"

#include "ext/invalidation/delivery.hpp"
#include "ext/invalidation/outbox.hpp"
#include "ext/statistics/statistics.hpp"
#include "pg/guard.hpp"
#include "pg/settings.hpp"
#include "pg/worker_table.hpp"

extern "C" {
#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_database.h"
#include "catalog/pg_db_role_setting.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/backend_status.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

PGDLLEXPORT void cache_ext_worker_main(Datum database);
PGDLLEXPORT void cache_ext_launcher_main(Datum unused);
PG_FUNCTION_INFO_V1(cache_ext_worker_pid);
}

namespace cache_ext::worker {

namespace {

constexpr int kSweepMs = 1000;     /* look for work nobody told us of */
constexpr int kIdleExitMs = 3000;  /* without work */
constexpr int kQuietMs = 500;      /* without work: nobody is disturbed */
constexpr int kVacuumMs = 1000;    /* between vacuums while there is work */
constexpr int kHeldMs = 20;        /* the longest sleep that nothing interrupts */
constexpr int kClaimMs = 2000;     /* for a predecessor to be gone */
constexpr int kLauncherMs = 5000;  /* between looks for databases without their worker */
constexpr int kFirstPauseMs = 500; /* after a verb has failed, doubled each time */
constexpr int kLongestPauseMs = 60 * 1000;
constexpr int kLogAgainMs = 60 * 1000; /* the same error */

/* Leave at once when there is nothing to do; in the worker's bgw_extra. */
constexpr char kLookOnce = 'o';

bool preloaded = false;
bool is_worker = false;
pg::WorkerSlot *counted = nullptr; /* this transaction is counted in there */
uint32 counted_work = 0;           /* what its commit leaves to do */
ProcessUtility_hook_type previous_utility = nullptr;

TimestampTz
in_ms(int64 ms)
{
	return GetCurrentTimestamp() + ms * 1000;
}

bool
start_worker(Oid database, bool look_once, BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker = {};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = ObjectIdGetDatum(database);
	worker.bgw_notify_pid = handle != nullptr ? MyProcPid : 0;
	worker.bgw_extra[0] = look_once ? kLookOnce : '\0';
	strlcpy(worker.bgw_library_name, "cache_ext", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "cache_ext_worker_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "cache_ext worker", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "cache_ext worker", sizeof(worker.bgw_type));
	return RegisterDynamicBackgroundWorker(&worker, handle);
}

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
	case XACT_EVENT_PREPARE:
	case XACT_EVENT_PARALLEL_COMMIT:
		pg::settle_expectation(counted, counted_work);
		counted = nullptr;
		break;
	case XACT_EVENT_ABORT:
	case XACT_EVENT_PARALLEL_ABORT:
		pg::settle_expectation(counted, 0);
		counted = nullptr;
		break;
	case XACT_EVENT_PRE_COMMIT:
	case XACT_EVENT_PRE_PREPARE:
	case XACT_EVENT_PARALLEL_PRE_COMMIT:
		break;
	}
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

	if (OidIsValid(database) && owners_only &&
#if PG_VERSION_NUM >= 160000
	    !object_ownercheck(DatabaseRelationId, database, GetUserId()))
#else
	    !pg_database_ownercheck(database, GetUserId()))
#endif
		return InvalidOid;
	return database;
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

	/* What it made visible was queued by a transaction that nobody is in any more. */
	if (ends_prepared)
		wake(Work::kOutbox);
}

/* What the verbs tell the loop. */
struct Turn
{
	int64 folded = 0;
	invalidation::DeliveryTurn delivery = {};
	bool installed = true;
	bool idle = false; /* no work for a while */
} turn;

/* A verb and how it fares. */
struct Verb
{
	const char *activity; /* for pg_stat_activity */
	void (*run)();
	int pause_ms;           /* 0: the last run was well */
	TimestampTz not_before; /* because it failed */
	uint32 logged;          /* hash of the error that was logged last */
	TimestampTz logged_at;
};

/* Interrupts are held; false when the same was said a short while ago. */
bool
worth_logging(Verb *verb, const ErrorData *error)
{
	uint32 hash = static_cast<uint32>(error->sqlerrcode);

	for (const char *c = error->message; c != nullptr && *c != '\0'; ++c)
		hash = hash * 31 + static_cast<unsigned char>(*c);
	if (hash == verb->logged &&
	    !TimestampDifferenceExceeds(verb->logged_at, GetCurrentTimestamp(), kLogAgainMs))
		return false;
	verb->logged = hash;
	verb->logged_at = GetCurrentTimestamp();
	return true;
}

/* Looks anew, since the extension may have been dropped under the verb's feet. */
bool
still_installed()
{
	bool installed;

	StartTransactionCommand();
	installed = invalidation::outbox_exists();
	CommitTransactionCommand();
	return installed;
}

/* Say it in the log as the error it was. */
void
report_again(ErrorData *error)
{
	PG_TRY();
	{
		ThrowErrorData(error);
	}
	PG_CATCH();
	{
		EmitErrorReport();
		FlushErrorState();
	}
	PG_END_TRY();
}

void
recover(Verb *verb, MemoryContext context)
{
	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(context);

	ErrorData *error = CopyErrorData();

	FlushErrorState();
	AbortCurrentTransaction();
	LWLockReleaseAll();
	verb->pause_ms = verb->pause_ms == 0 ? kFirstPauseMs : Min(verb->pause_ms * 2, kLongestPauseMs);
	verb->not_before = in_ms(verb->pause_ms);
	turn.installed = still_installed();
	MemoryContextSwitchTo(context);
	if (turn.installed && worth_logging(verb, error))
		report_again(error);
	RESUME_INTERRUPTS();
}

void
attempt(Verb *verb, MemoryContext context)
{
	if (verb->pause_ms != 0 && GetCurrentTimestamp() < verb->not_before)
		return;

	pgstat_report_activity(STATE_RUNNING, verb->activity);
	PG_TRY();
	{
		verb->run();
		verb->pause_ms = 0;
	}
	PG_CATCH();
	{
		recover(verb, context);
	}
	PG_END_TRY();
	pgstat_report_activity(STATE_IDLE, nullptr);
	MemoryContextSwitchTo(context);
	MemoryContextReset(context);
}

void
run_housekeeping()
{
	StartTransactionCommand();
	turn.installed = invalidation::outbox_exists();
	if (turn.installed)
	{
		/* What ALTER DATABASE has set since this process began. */
		Relation settings = table_open(DbRoleSettingRelationId, AccessShareLock);
		Snapshot snapshot = RegisterSnapshot(GetCatalogSnapshot(DbRoleSettingRelationId));

		ApplySetting(snapshot, MyDatabaseId, InvalidOid, settings, PGC_S_DATABASE);
		UnregisterSnapshot(snapshot);
		table_close(settings, AccessShareLock);
	}
	CommitTransactionCommand();
}

void
run_fold()
{
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	turn.folded = statistics::fold(false);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

void
run_delivery()
{
	turn.delivery = invalidation::deliver_batch();
}

void
run_vacuum()
{
	pgstat_report_stat(true); /* the counts of dead rows decide what is worth it */
	statistics::vacuum_churned();
}

void
run_outbox_vacuum()
{
	invalidation::vacuum_outbox(turn.idle);
}

/* What users may have set for sessions must not change how we work. */
void
pin_settings()
{
	static const char *const kSettings[][2] = {
	    {"default_transaction_isolation", "read committed"},
	    {"default_transaction_read_only", "off"},
	    {"default_transaction_deferrable", "off"},
	    {"synchronous_commit", "off"}, /* what a crash loses here is done again */
	    {"statement_timeout", "0"},
	    {"lock_timeout", "0"},
	    {"idle_in_transaction_session_timeout", "0"},
	    {"search_path", "pg_catalog, pg_temp"},
	    {"application_name", "cache_ext worker"},
	};

	for (auto &setting : kSettings)
		SetConfigOption(setting[0], setting[1], PGC_SUSET, PGC_S_OVERRIDE);
}

bool
claim_slot(pg::WorkerSlot *slot)
{
	TimestampTz limit = in_ms(kClaimMs);

	while (!pg::claim_worker_slot(slot))
	{
		if (GetCurrentTimestamp() > limit)
			return false;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_TIMEOUT, 10,
		                 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return true;
}

void
on_exit(int, Datum slot)
{
	pg::release_worker_slot(reinterpret_cast<pg::WorkerSlot *>(DatumGetPointer(slot)));
}

class Loop
{
  public:
	Loop(pg::WorkerSlot *slot, bool look_once) : slot_(slot), look_once_(look_once)
	{
		context_ = AllocSetContextCreate(TopMemoryContext, "cache_ext worker turn",
		                                 ALLOCSET_DEFAULT_SIZES);
		MemoryContextSwitchTo(context_);
	}

	/* Until there is a reason to leave. */
	void run()
	{
		for (;;)
		{
			CHECK_FOR_INTERRUPTS();
			if (ConfigReloadPending)
			{
				ConfigReloadPending = false;
				ProcessConfigFile(PGC_SIGHUP);
			}
			if (pg::asked_to_leave(slot_) || ShutdownRequestPending)
			{
				/* Work that stays behind is somebody's to start a worker for. */
				if (turn.delivery.occupied || fold_wanted_)
					pg::mark_work(slot_, pg::kAllWork);
				attempt(&finish_, context_);
				return;
			}
			if (GetCurrentTimestamp() >= next_sweep_)
				sweep();
			if (!turn.installed)
				return;
			if (delivery_due())
				deliver();
			if (turn.installed && fold_due())
				fold();
			if (!turn.installed)
				return;
			if (churned_ && GetCurrentTimestamp() >= next_vacuum_)
				vacuum();
			if (may_leave())
				return;
			sleep();
		}
	}

  private:
	bool waits(uint32 work) const { return (pg::waiting_work(slot_) & work) != 0; }

	/* What nobody told us of: a COMMIT PREPARED, rows from before a crash, new settings. */
	void sweep()
	{
		if (next_sweep_ == 0)
			fold_wanted_ = true;
		attempt(&housekeeping_, context_);
		next_sweep_ = in_ms(kSweepMs);
		if (!turn.delivery.hold)
			next_delivery_ = 0;
		pgstat_report_stat(false);
	}

	bool delivery_due() const
	{
		if (GetCurrentTimestamp() >= next_delivery_)
			return true;
		return !turn.delivery.hold && waits(pg::kWorkOutbox);
	}

	void deliver()
	{
		if (pg::take_work(slot_, pg::kWorkOutbox) != 0)
			last_work_ = GetCurrentTimestamp();
		attempt(&delivery_, context_);
		if (delivery_.pause_ms != 0)
			turn.delivery = {delivery_.pause_ms, true, false, true};
		next_delivery_ = in_ms(turn.delivery.wait_ms);
		if (turn.delivery.occupied)
			last_work_ = GetCurrentTimestamp();
		turn.idle = TimestampDifferenceExceeds(last_work_, GetCurrentTimestamp(), kQuietMs);
		attempt(&outbox_vacuum_, context_);
	}

	/* The flag is lowered by the fold itself: what comes meanwhile needs no latch. */
	bool fold_due()
	{
		if (!fold_wanted_ && waits(pg::kWorkPartialRows))
			fold_wanted_ = true;
		return fold_wanted_ && GetCurrentTimestamp() >= next_fold_;
	}

	void fold()
	{
		if (pg::take_work(slot_, pg::kWorkPartialRows) != 0)
			last_work_ = GetCurrentTimestamp();
		attempt(&fold_, context_);
		next_fold_ = in_ms(Max(pg::fold_interval_ms, fold_.pause_ms));
		if (fold_.pause_ms != 0)
			return;
		fold_wanted_ = turn.folded != 0;
		if (turn.folded > 0)
		{
			churned_ = true;
			last_work_ = GetCurrentTimestamp();
		}
	}

	void vacuum()
	{
		attempt(&vacuum_, context_);
		next_vacuum_ = in_ms(kVacuumMs);
		churned_ = false;
	}

	bool may_leave()
	{
		if (turn.delivery.occupied || churned_ || pg::waiting_work(slot_) != 0)
			return false;
		if (turn.delivery.watching && preloaded)
			return false;
		if (fold_wanted_ && fold_.pause_ms == 0)
			return false;
		if (!look_once_ &&
		    !TimestampDifferenceExceeds(last_work_, GetCurrentTimestamp(), kIdleExitMs))
			return false;
		attempt(&finish_, context_);
		return pg::release_idle_slot(slot_);
	}

	/*
	 * While a delivery is held back, commits would only wake us to sleep again:
	 * leave the latch alone then.
	 */
	void sleep()
	{
		TimestampTz until = Min(next_sweep_, next_delivery_);
		bool held = turn.delivery.hold && waits(pg::kWorkOutbox);

		/* Waiting for Redis has used up the latch; the flags are what counts. */
		if ((waits(pg::kWorkOutbox) && !held) || (waits(pg::kWorkPartialRows) && !fold_wanted_))
			return;

		int events = WL_EXIT_ON_PM_DEATH | WL_TIMEOUT;

		if (fold_wanted_)
			until = Min(until, next_fold_);
		if (churned_)
			until = Min(until, next_vacuum_);

		long wait_ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

		if (!held || wait_ms > kHeldMs)
			events |= WL_LATCH_SET;
		if (wait_ms > kHeldMs)
		{
			/* A request to stop that finds us idle is no error: no FATAL in the log. */
			pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
			(void) WaitLatch(MyLatch, events, wait_ms, PG_WAIT_EXTENSION);
			pqsignal(SIGTERM, die);
		}
		else if (wait_ms > 0)
			(void) WaitLatch(MyLatch, events, wait_ms, PG_WAIT_EXTENSION);
		if (events & WL_LATCH_SET)
			ResetLatch(MyLatch);
	}

	pg::WorkerSlot *slot_;
	bool look_once_;
	MemoryContext context_;
	Verb housekeeping_ = {"cache_ext: looking for work", run_housekeeping, 0, 0, 0, 0};
	Verb delivery_ = {"cache_ext: delivering invalidations", run_delivery, 0, 0, 0, 0};
	Verb fold_ = {"cache_ext: folding partial rows", run_fold, 0, 0, 0, 0};
	Verb vacuum_ = {"cache_ext: vacuuming", run_vacuum, 0, 0, 0, 0};
	Verb outbox_vacuum_ = {"cache_ext: vacuuming the outbox", run_outbox_vacuum, 0, 0, 0, 0};
	Verb finish_ = {"cache_ext: leaving", invalidation::finish_delivery, 0, 0, 0, 0};
	bool started_ = false;
	bool fold_wanted_ = false;
	bool churned_ = false;
	TimestampTz next_sweep_ = 0;
	TimestampTz next_delivery_ = 0;
	TimestampTz next_fold_ = 0;
	TimestampTz next_vacuum_ = 0;
	TimestampTz last_work_ = GetCurrentTimestamp();
};

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
		proc_exit(1); /* should somebody have stopped us alone, we come back */
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
			pg::forget_database(missing[i]);
	}
	list_free(databases);
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
register_worker()
{
	preloaded = process_shared_preload_libraries_in_progress;
	pg::register_worker_table();
	RegisterXactCallback(on_transaction, nullptr);
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = on_utility;

	if (preloaded && !IsBinaryUpgrade)
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
}

static uint32
work_bit(Work work)
{
	return work == Work::kOutbox ? pg::kWorkOutbox : pg::kWorkPartialRows;
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

extern "C" {

void
cache_ext_worker_main(Datum database)
{
	using namespace cache_ext;

	worker::is_worker = true;
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(database), InvalidOid, 0);

	pg::WorkerSlot *slot = pg::my_worker_slot();

	if (slot == nullptr || !worker::claim_slot(slot))
		proc_exit(0);
	before_shmem_exit(worker::on_exit, PointerGetDatum(slot));
	worker::pin_settings();
	pg::guard([&] {
		worker::Loop loop(slot, MyBgworkerEntry->bgw_extra[0] == worker::kLookOnce);

		loop.run();
	});
	proc_exit(0);
}

void
cache_ext_launcher_main(Datum)
{
	using namespace cache_ext;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(nullptr, nullptr, 0);
	SetConfigOption("application_name", "cache_ext launcher", PGC_SUSET, PGC_S_OVERRIDE);
	pgstat_report_activity(STATE_IDLE, nullptr);

	worker::look_everywhere();
	for (;;)
	{
		worker::launcher_sleep(worker::kLauncherMs);
		if (ConfigReloadPending)
		{
			/* Perhaps a Redis was configured that rows have been waiting for. */
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			worker::look_everywhere();
		}
		worker::start_missing();
	}
}

Datum
cache_ext_worker_pid(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	int pid = cache_ext::worker::running_pid();

	if (pid == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT32(pid);
}
}
