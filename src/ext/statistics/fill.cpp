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

} /* namespace cache_ext::statistics */
