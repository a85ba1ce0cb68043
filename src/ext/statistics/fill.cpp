/*-------------------------------------------------------------------------
 *
 * fill.cpp
 *		See fill.hpp.
 *
 * Filling while others write is exact because of one snapshot.  All writers
 * that do not count for the statistic have ended before it (whoever created
 * the statistic or enabled its triggers held them off for a moment).  What the
 * snapshot sees is recomputed from the tables, and the partial rows that it
 * sees are folded away; what it does not see has left partial rows that it
 * does not see either, and they stay in the log and count on top.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/fill.hpp"
#include "ext/statistics/feed.hpp"
#include "ext/statistics/fold.hpp"
#include "ext/statistics/lost_index.hpp"
#include "ext/statistics/restore.hpp"
#include "ext/statistics/sources.hpp"
#include "ext/statistics/triggers.hpp"
#include "ext/statistics/verify.hpp"
#include "ext/worker.hpp"
#include "pg/guard.hpp"
#include "pg/maintenance_lock.hpp"
#include "pg/memory.hpp"

extern "C" {
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "executor/spi.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/backend_progress.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
}

namespace cache_ext::statistics {

/* Filling applies its sums whenever the netted rows take this much memory. */
constexpr size_t kFillBytes = 48 * 1024 * 1024;

/* The worker waits so long for a table at most, and less than a deadlock's other party. */
constexpr int kLockTimeoutMs = 200;

/* Readers of a statistic that is not filled wake the worker so often. */
constexpr int kWakeMs = 1000;

/* Parameters of the worker's entry in the table of running commands. */
constexpr int kBlocksDone = 0;
constexpr int kBlocksTotal = 1;

/* ---- filled or not ---- */

bool
is_filled(int32 statistic)
{
	return read_progress(statistic, nullptr).visible;
}

void
unfill(int32 statistic)
{
	pg::hold_off_maintenance();
	delete_progress(statistic);
	worker::note_committed_changes_soon(worker::Work::kFilling);
}

void
wake_filling()
{
	static TimestampTz last = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (RecoveryInProgress() || !TimestampDifferenceExceeds(last, now, kWakeMs))
		return;
	last = now;
	worker::wake(worker::Work::kFilling);
}

char *
filling_failure(int32 statistic)
{
	char *message = nullptr;
	AsOwner owner(internal_owner());
	PinnedSearchPath path;

	SPI_connect();
	if (SPI_execute(psprintf("SELECT message FROM cache_ext_internal.failure WHERE statistic = %d",
	                         statistic),
	                false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read failures");
	if (SPI_processed > 0)
		message = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (message != nullptr)
		message = strcpy(static_cast<char *>(SPI_palloc(strlen(message) + 1)), message);
	SPI_finish();
	path.restore();
	owner.restore();
	return message;
}

void
forget_failure(int32 statistic)
{
	AsOwner owner(internal_owner());

	run("DELETE FROM cache_ext_internal.failure WHERE statistic = %d", statistic);
	owner.restore();
}

/* ---- filling ---- */

struct Filling
{
	Definition *definition;
	MemoryContext context; /* of what is being applied */
	MemoryContext sums;    /* of what is being added up */
	Delta *delta;
	int64 blocks_done; /* of the tables before this one */
};

static void
flush(Filling *filling)
{
	MemoryContext caller = MemoryContextSwitchTo(filling->context);
	Pending *pending = make_pending(filling->definition, filling->context);

	/* A statistic without groups has a row even when its tables are empty. */
	if (filling->definition->group_count == 0)
		(void) key_cells(pending->totals, nullptr, nullptr, true);
	add_delta(pending, filling->delta);
	pending->last_change = GetCurrentTimestamp();
	apply(pending, nullptr);
	filling->delta->clear();
	MemoryContextSwitchTo(caller);
	MemoryContextReset(filling->context);
}

static void
fill_from(Filling *filling, Oid source, Oid member)
{
	Relation relation = table_open(member, AccessShareLock);
	MemoryContext caller = MemoryContextSwitchTo(filling->sums);
	Capture *capture = compile_capture(relation, source, filling->definition->row.id);
	TupleTableSlot *slot = table_slot_create(relation, nullptr);
	TableScanDesc scan = table_beginscan(relation, GetActiveSnapshot(), 0, nullptr);
	BlockNumber block = 0;

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		feed_row(capture, filling->delta, slot, 1);
		if (filling->delta->bytes() > kFillBytes)
			flush(filling);
		if (ItemPointerGetBlockNumber(&slot->tts_tid) == block)
			continue;
		block = ItemPointerGetBlockNumber(&slot->tts_tid);
		pgstat_progress_update_param(kBlocksDone, filling->blocks_done + block);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	flush(filling);
	filling->blocks_done += RelationGetNumberOfBlocks(relation);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(filling->sums);
	table_close(relation, NoLock);
}

/* The members of a source that have rows of their own, as "source, member" pairs. */
template <typename Visit>
static void
for_each_member(const Definition *definition, Visit &&visit)
{
	ListCell *cell;
	ListCell *inner;

	foreach (cell, source_relations(definition))
		foreach (inner, find_all_inheritors(lfirst_oid(cell), NoLock, nullptr))
			if (get_rel_relkind(lfirst_oid(inner)) != RELKIND_PARTITIONED_TABLE)
				visit(lfirst_oid(cell), lfirst_oid(inner));
}

static int64
blocks_of_sources(const Definition *definition)
{
	int64 blocks = 0;

	for_each_member(definition, [&](Oid, Oid member) {
		Relation relation = table_open(member, AccessShareLock);

		blocks += RelationGetNumberOfBlocks(relation);
		table_close(relation, NoLock);
	});
	return blocks;
}

void
fill(Definition *definition)
{
	Filling filling = {};

	filling.definition = definition;
	filling.context =
	    AllocSetContextCreate(CurrentMemoryContext, "cache_ext filling", ALLOCSET_DEFAULT_SIZES);
	filling.sums =
	    AllocSetContextCreate(CurrentMemoryContext, "cache_ext sums", ALLOCSET_DEFAULT_SIZES);
	filling.delta = pg::make_in<Delta>(CurrentMemoryContext);

	pgstat_progress_start_command(PROGRESS_COMMAND_INVALID, definition->row.relation);
	pgstat_progress_update_param(kBlocksTotal, blocks_of_sources(definition));
	for_each_member(definition,
	                [&](Oid source, Oid member) { fill_from(&filling, source, member); });
	flush(&filling);
	pgstat_progress_update_param(kBlocksTotal, 0);
	MemoryContextDelete(filling.context);
	MemoryContextDelete(filling.sums);
}

/*
 * Not by SQL: a publication of all tables would demand a replica identity of
 * tables that nobody replicates.
 */
static void
empty_table(Oid table)
{
	Relation relation = table_open(table, RowExclusiveLock);
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(relation, snapshot, 0, nullptr);
	TupleTableSlot *slot = table_slot_create(relation, nullptr);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		simple_heap_delete(relation, &slot->tts_tid);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(relation, NoLock);
}

static void
empty_tables(const Definition *d)
{
	empty_table(d->totals);
	for (int i = 0; i < d->part_count; ++i)
		if (!d->parts[i].by_index)
			empty_table(d->parts[i].table);
	delete_progress(d->row.id);
}

void
fill_anew(Definition *definition)
{
	AsOwner internals(internal_owner());
	empty_tables(definition);
	internals.restore();

	/* Whoever refreshes it, expressions of the query run with its owner's rights. */
	AsOwner owner(relation_owner(definition->row.query), SECURITY_RESTRICTED_OPERATION);
	fill(definition);
	owner.restore();
}

bool
lock_existing_sources(List *relations, LOCKMODE mode)
{
	ListCell *cell;

	foreach (cell, relations)
	{
		if (!lock_existing(lfirst_oid(cell), mode))
			return false;
		(void) find_all_inheritors(lfirst_oid(cell), mode, nullptr);
	}
	return true;
}

void
lock_sources(List *relations, LOCKMODE mode)
{
	if (!lock_existing_sources(relations, mode))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
		                errmsg("a table of the statistic was dropped concurrently")));
}

float
filling_progress(Oid relation)
{
	for (int i = 1; i <= pgstat_fetch_stat_numbackends(); ++i)
	{
		LocalPgBackendStatus *local =
#if PG_VERSION_NUM >= 160000
		    pgstat_get_local_beentry_by_index(i);
#else
		    pgstat_fetch_stat_local_beentry(i);
#endif
		const PgBackendStatus &entry = local->backendStatus;

		if (entry.st_databaseid == MyDatabaseId &&
		    entry.st_progress_command == PROGRESS_COMMAND_INVALID &&
		    entry.st_progress_command_target == relation &&
		    entry.st_progress_param[kBlocksTotal] > 0)
			return Min(1.0f, (float) entry.st_progress_param[kBlocksDone] /
			                     (float) entry.st_progress_param[kBlocksTotal]);
	}
	return 0;
}

/* ---- the worker's verb ---- */

static int32 attempted = 0; /* the statistic that is being taken up, filled or verified */
static bool verifying = false;

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
	if (!pg::take_maintenance_lock(pg::Maintenance::kFolding, false))
		return FillTurn::kLater;

	/* Nobody can drop it, or disable triggers, from here on. */
	Definition *definition = definition_of(row.id);
	if (definition == nullptr || !can_be_filled(row.id))
		return FillTurn::kDone;
	foreach (cell, relations)
		if (trigger_trouble(lfirst_oid(cell)) != nullptr)
			return FillTurn::kNothing;
	definition = add_missing_parts(definition);

	PushCopiedSnapshot(GetLatestSnapshot());
	fold_all(sources);
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
	verifying = true;
	verify_in_background(*static_cast<StatisticRow *>(linitial(unverified)));
	return FillTurn::kDone;
}

/* Not the statistic's fault, and over in a while. */
static bool
is_passing(int sqlstate)
{
	return sqlstate == ERRCODE_LOCK_NOT_AVAILABLE || sqlstate == ERRCODE_QUERY_CANCELED ||
	       sqlstate == ERRCODE_T_R_DEADLOCK_DETECTED;
}

static bool
blames_the_statistic(int sqlstate)
{
	int category = ERRCODE_TO_CATEGORY(sqlstate);

	return category != ERRCODE_INSUFFICIENT_RESOURCES && category != ERRCODE_INTERNAL_ERROR &&
	       category != ERRCODE_OPERATOR_INTERVENTION && category != ERRCODE_SYSTEM_ERROR;
}

static void
note_failure(int32 statistic, const char *message)
{
	bool known = false;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	pg::guard([&] {
		if (verifying)
		{
			remember_verdict(statistic, false);
			return;
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
		ereport(LOG, (errmsg("could not %s statistic %d: %s", verifying ? "verify" : "fill",
		                     statistic, message)));
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

	attempted = 0;
	verifying = false;
	PG_TRY();
	{
		StartTransactionCommand();
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
		MemoryContextSwitchTo(context);
		ErrorData *error = CopyErrorData();

		if (!is_passing(error->sqlerrcode) &&
		    (attempted == 0 || !blames_the_statistic(error->sqlerrcode)))
			PG_RE_THROW();
		FlushErrorState();
		AbortCurrentTransaction();
		MemoryContextSwitchTo(context);
		if (!is_passing(error->sqlerrcode))
			note_failure(attempted, error->message);
		turn = is_passing(error->sqlerrcode) ? FillTurn::kLater : FillTurn::kDone;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return turn;
}

} /* namespace cache_ext::statistics */
