/*-------------------------------------------------------------------------
 *
 * fold.cpp
 *		Moving partial rows from the logs into totals and parts.
 *
 * One transaction deletes the partial rows that a fresh snapshot sees and adds
 * the same to the tables, so the sum that any snapshot reads is unchanged.
 * One session folds at a time (fold lock), so the states it reads are the
 * newest.  See README.md for the argument.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/fold.hpp"
#include "ext/statistics/statistics.hpp"
#include "ext/statistics/fill.hpp"
#include "pg/guard.hpp"
#include "pg/maintenance_lock.hpp"
#include "pg/memory.hpp"

extern "C" {
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
}

namespace cache_ext::statistics {

/* A fold stops collecting at this much memory; the rest is for the next one. */
constexpr Size kMaxCollected = (Size) 256 * 1024 * 1024;

/* The statistic whose sums are being added up or applied, for whoever has to handle an error. */
static int32 at_work = 0;

int32
folded_statistic()
{
	return at_work;
}

void
note_folded_statistic(int32 statistic)
{
	at_work = statistic;
}

/* ---- collecting ---- */

struct Folding
{
	MemoryContext context;
	List *pendings;    /* of Pending * */
	List *passed_over; /* of int: statistics that are gone or not filled */
	Pending *last;
	int64 rows;
};

static Pending *
pending_of(Folding *folding, int32 statistic)
{
	ListCell *cell;

	if (folding->last != nullptr && folding->last->definition->row.id == statistic)
		return folding->last;
	foreach (cell, folding->pendings)
	{
		auto *pending = static_cast<Pending *>(lfirst(cell));

		if (pending->definition->row.id == statistic)
			return folding->last = pending;
	}

	if (list_member_int(folding->passed_over, statistic))
		return nullptr;

	Definition *definition = is_filled(statistic) ? definition_of(statistic) : nullptr;
	MemoryContext caller = MemoryContextSwitchTo(folding->context);
	if (definition == nullptr)
	{
		folding->passed_over = lappend_int(folding->passed_over, statistic);
		MemoryContextSwitchTo(caller);
		return nullptr;
	}

	folding->last = make_pending(definition, folding->context);
	folding->pendings = lappend(folding->pendings, folding->last);
	MemoryContextSwitchTo(caller);
	return folding->last;
}

static void
collect_row(Folding *folding, std::string_view delta, TimestampTz at, float us)
{
	Decoder entries(delta.data(), delta.size());
	Pending *previous = nullptr;

	while (!entries.done())
	{
		std::string_view bytes = entries.sized_bytes();
		Decoder entry(bytes.data(), bytes.size());
		auto statistic = (int32) entry.varint();
		auto part = (int) entry.varint() - 1;

		at_work = statistic;
		Pending *pending = pending_of(folding, statistic);
		if (pending != nullptr)
			add_entry(pending, part, &entry);
		at_work = 0;
		if (pending == nullptr)
			continue;
		if (pending != previous)
		{
			++pending->rows;
			pending->us += us;
		}
		pending->last_change = Max(pending->last_change, at);
		previous = pending;
	}
}

/* Takes what the snapshot sees, as far as memory goes; is that all? */
static bool
collect_log(Folding *folding, Oid log, Snapshot snapshot)
{
	Relation relation = table_open(log, RowExclusiveLock);
	TupleTableSlot *slot = table_slot_create(relation, nullptr);
	TableScanDesc scan = table_beginscan(relation, snapshot, 0, nullptr);

	bool all = true;

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		if (MemoryContextMemAllocated(folding->context, true) >= kMaxCollected)
		{
			all = false;
			break;
		}
		slot_getallattrs(slot);
		collect_row(folding, pg::view(DatumGetPointer(slot->tts_values[kLogDelta - 1])),
		            DatumGetTimestampTz(slot->tts_values[kLogAt - 1]),
		            DatumGetFloat4(slot->tts_values[kLogMicroseconds - 1]));
		simple_heap_delete(relation, &slot->tts_tid);
		++folding->rows;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(relation, NoLock);
	return all;
}

int64
fold_sources(List *sources, Snapshot snapshot)
{
	ListCell *cell;
	Folding folding = {};

	folding.context =
	    AllocSetContextCreate(CurrentMemoryContext, "cache_ext fold", ALLOCSET_DEFAULT_SIZES);

	CommandCounterIncrement();
	snapshot = RegisterSnapshot(snapshot != nullptr ? snapshot : GetLatestSnapshot());
	bool all = true;
	foreach (cell, sources)
		all = collect_log(&folding, static_cast<SourceRow *>(lfirst(cell))->log, snapshot) && all;
	foreach (cell, folding.pendings)
		apply(static_cast<Pending *>(lfirst(cell)), all ? snapshot : nullptr);
	UnregisterSnapshot(snapshot);
	MemoryContextDelete(folding.context);
	return folding.rows;
}

} /* namespace cache_ext::statistics */
