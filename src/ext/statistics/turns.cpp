/*-------------------------------------------------------------------------
 *
 * turns.cpp
 *		What the worker and the filler do for statistics, a transaction a turn.
 *
 * An error that is a statistic's own (an overflow, an expression that raises)
 * is noted as its trouble and must not keep the others waiting: the statistic
 * answers by running its query, which says what is wrong where it matters.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/fill.hpp"
#include "ext/statistics/fold.hpp"
#include "ext/statistics/lost_index.hpp"
#include "ext/statistics/restore.hpp"
#include "ext/statistics/sources.hpp"
#include "ext/statistics/statistics.hpp"
#include "ext/statistics/triggers.hpp"
#include "ext/statistics/verify.hpp"
#include "ext/worker.hpp"
#include "pg/guard.hpp"
#include "pg/maintenance_lock.hpp"

extern "C" {
#include "access/xact.h"
#include "executor/spi.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
}

namespace cache_ext::statistics {

/* The worker waits so long for a table at most, and less than a deadlock's other party. */
constexpr int kLockTimeoutMs = 200;

/* ---- filling ---- */

enum class Task
{
	kFold,
	kFill,
	kVerify
};

static Task task = Task::kFill;
static int32 attempted = 0; /* the statistic that is being taken up, filled or verified */

/* A restored statistic may only lack an index that is being made: it gets another chance. */
static bool
has_just_failed(int32 restored)
{
	AsOwner owner(internal_owner());
	PinnedSearchPath path;

	SPI_connect();
	if (SPI_execute(psprintf("SELECT FROM cache_ext_internal.failure WHERE statistic = %d "
	                         "AND at > pg_catalog.clock_timestamp() - interval '2 s'",
	                         restored),
	                false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read failures");
	bool found = SPI_processed > 0;
	SPI_finish();
	path.restore();
	owner.restore();
	return found;
}

static bool
can_be_filled(int32 statistic)
{
	return !is_filled(statistic) && filling_failure(statistic) == nullptr;
}

/* Fold all that the active snapshot sees, in as many steps as memory asks for. */
static void
fold_all(List *sources)
{
	while (fold_sources(sources, GetActiveSnapshot()) > 0)
	{
		CommandCounterIncrement();
		UpdateActiveSnapshotCommandId();
	}
}

/*
 * Until the filling ends nobody else may fold these logs, nor any log that
 * another statistic of theirs has partial rows in: its tables have changes that
 * are not committed yet.  Nobody folds now, so all of them are free.
 */
static void
claim_neighbours(List *sources)
{
	ListCell *cell;
	ListCell *statistic;
	ListCell *neighbour;

	foreach (cell, sources)
		foreach (statistic, statistics_of_source(static_cast<SourceRow *>(lfirst(cell))->id))
			foreach (neighbour, sources_of_statistic(lfirst_int(statistic)))
			{
				SourceRow source;

				if (find_source(lfirst_int(neighbour), &source) && !pg::claim_log(source.log))
					elog(ERROR, "log %u is being folded", source.log);
			}
}

static FillTurn
fill_unfilled(const StatisticRow &row)
{
	ListCell *cell;
	List *relations = NIL;
	List *sources = NIL;

	foreach (cell, sources_of_statistic(row.id))
	{
		auto *source = static_cast<SourceRow *>(palloc(sizeof(SourceRow)));

		if (!find_source(lfirst_int(cell), source))
			return FillTurn::kLater;
		relations = lappend_oid(relations, source->relation);
		sources = lappend(sources, source);
	}
	attempted = row.id;
	if (!lock_existing_sources(relations, AccessShareLock))
		return FillTurn::kDone;
	if (!pg::take_maintenance_lock(pg::Maintenance::kFilling, false) ||
	    !pg::take_maintenance_lock(pg::Maintenance::kFolding, false))
		return FillTurn::kLater;

	/* Nobody can drop it, or disable triggers, from here on. */
	Definition *definition = definition_of(row.id);
	if (definition == nullptr || !can_be_filled(row.id))
		return FillTurn::kDone;
	foreach (cell, relations)
		if (trigger_trouble(lfirst_oid(cell)) != nullptr)
			return FillTurn::kNothing;
	definition = add_missing_parts(definition);

	claim_neighbours(sources);
	PushCopiedSnapshot(GetLatestSnapshot());
	fold_all(sources);
	pg::release_maintenance_lock(pg::Maintenance::kFolding);
	fill_anew(definition);
	PopActiveSnapshot();
	return FillTurn::kDone;
}

static FillTurn
do_next()
{
	ListCell *cell;
	FillTurn turn = FillTurn::kNothing;

	if (take_up_watched_tables() > 0)
		return FillTurn::kDone;
	foreach (cell, restored_statistics())
	{
		auto *row = static_cast<StatisticRow *>(lfirst(cell));

		attempted = row->id;
		if (!has_just_failed(row->id) && take_up(*row, false))
			return FillTurn::kDone;
	}
	foreach (cell, all_statistics())
	{
		auto *row = static_cast<StatisticRow *>(lfirst(cell));

		if (!can_be_filled(row->id))
			continue;
		turn = fill_unfilled(*row);
		if (turn != FillTurn::kNothing)
			return turn;
	}
	List *unverified = unverified_statistics();
	if (unverified == NIL)
		return turn;
	attempted = static_cast<StatisticRow *>(linitial(unverified))->id;
	task = Task::kVerify;
	verify_in_background(*static_cast<StatisticRow *>(linitial(unverified)));
	return FillTurn::kDone;
}

/* Was a relation looked at that somebody has just dropped? */
static bool
is_about_something_gone(const ErrorData *error)
{
	const char *format = error->message_id;

	return error->sqlerrcode == ERRCODE_INTERNAL_ERROR && format != nullptr &&
	       (strcmp(format, "could not open relation with OID %u") == 0 ||
	        strcmp(format, "cache lookup failed for relation %u") == 0);
}

/* Not the statistic's fault, and over in a while. */
static bool
is_passing(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
	       error->sqlerrcode == ERRCODE_QUERY_CANCELED ||
	       error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED || is_about_something_gone(error);
}

static bool
blames_the_statistic(int sqlstate)
{
	int category = ERRCODE_TO_CATEGORY(sqlstate);

	return category != ERRCODE_INSUFFICIENT_RESOURCES && category != ERRCODE_INTERNAL_ERROR &&
	       category != ERRCODE_OPERATOR_INTERVENTION && category != ERRCODE_SYSTEM_ERROR;
}

/* ---- errors ---- */

static void
note_failure(int32 statistic, const char *message)
{
	static const char *const kVerbs[] = {"fold", "fill", "verify"};
	bool known = false;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	pg::guard([&] {
		if (task == Task::kVerify)
		{
			remember_verdict(statistic, false);
			return;
		}
		/* Whoever keeps folds away now is gone when this one fails again. */
		if (task == Task::kFold)
		{
			if (!pg::take_maintenance_lock(pg::Maintenance::kFolding, false))
				return;
			delete_progress(statistic);
		}

		char *before = filling_failure(statistic);
		known = before != nullptr && strcmp(before, message) == 0;
		run("INSERT INTO cache_ext_internal.failure VALUES (%d, %s, pg_catalog.clock_timestamp()) "
		    "ON CONFLICT (statistic) DO UPDATE SET message = excluded.message, at = excluded.at",
		    statistic, quote_literal_cstr(message));
	});
	PopActiveSnapshot();
	CommitTransactionCommand();
	if (!known)
		ereport(LOG,
		        (errmsg("could not %s statistic %d: %s", kVerbs[(int) task], statistic, message)));
}

static void
begin_turn(Task what)
{
	attempted = 0;
	task = what;
	note_folded_statistic(0);
	StartTransactionCommand();
}

/*
 * The handler of a turn: notes an error that is a statistic's own, maybe not
 * that of the one attempted; any other is raised again.
 */
static FillTurn
take_error(MemoryContext context)
{
	MemoryContextSwitchTo(context);

	ErrorData *error = CopyErrorData();
	int32 folded = folded_statistic();
	int32 culprit = folded != 0 ? folded : attempted;
	bool passing = task != Task::kFold && is_passing(error);

	if (!passing && (culprit == 0 || !blames_the_statistic(error->sqlerrcode)))
		PG_RE_THROW();
	FlushErrorState();
	AbortCurrentTransaction();
	MemoryContextSwitchTo(context);
	if (passing)
		return FillTurn::kLater;
	if (culprit != attempted)
		task = Task::kFold;
	note_failure(culprit, error->message);
	return FillTurn::kDone;
}

/* ---- the turns ---- */

/* Beside a filling, what it leaves to others. */
static int64
fold_what_is_free()
{
	ListCell *cell;
	List *sources = all_sources();
	List *free = NIL;
	bool alone = pg::keep_fillings_away();

	if (!pg::take_maintenance_lock(pg::Maintenance::kFolding, false))
		return -1;
	foreach (cell, sources)
		if (alone || pg::claim_log(static_cast<SourceRow *>(lfirst(cell))->log))
			free = lappend(free, lfirst(cell));

	int64 folded = fold_sources(free);

	return folded == 0 && list_length(free) < list_length(sources) ? -1 : folded;
}

int64
fold_next()
{
	MemoryContext context = CurrentMemoryContext;
	volatile int64 folded = 0;

	PG_TRY();
	{
		begin_turn(Task::kFold);
		PushActiveSnapshot(GetTransactionSnapshot());
		folded = pg::guard(fold_what_is_free);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		(void) take_error(context);
		folded = 1; /* the others wait */
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return folded;
}

bool
filling_waits()
{
	return pg::guard([] {
		ListCell *cell;

		if (!OidIsValid(internal_relation("failure", true)))
			return false;
		foreach (cell, all_statistics())
			if (can_be_filled(static_cast<StatisticRow *>(lfirst(cell))->id))
				return true;
		return restored_statistics() != NIL || watched_tables_to_take_up() != NIL ||
		       unverified_statistics() != NIL;
	});
}

FillTurn
fill_next()
{
	MemoryContext context = CurrentMemoryContext;
	volatile FillTurn turn = FillTurn::kLater;

	PG_TRY();
	{
		begin_turn(Task::kFill);
		(void) set_config_option("lock_timeout",
		                         psprintf("%d", Max(1, Min(kLockTimeoutMs, DeadlockTimeout / 2))),
		                         PGC_SUSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
		PushActiveSnapshot(GetTransactionSnapshot());
		turn = pg::guard([] {
			return OidIsValid(internal_relation("failure", true)) ? do_next() : FillTurn::kNothing;
		});
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		turn = take_error(context);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return turn;
}

} /* namespace cache_ext::statistics */
