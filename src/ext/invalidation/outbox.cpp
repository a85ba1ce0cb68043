/*-------------------------------------------------------------------------
 *
 * outbox.cpp
 *		Writing and probing the outbox: the writers' and the readers' side.
 *
 * Rows are put in and looked up without SPI, and writers wait for nobody: an
 * outbox row conflicts with no other, and no unique index looks at them.
 *
 * The note that closes the Redis tier (a "lapse": somebody committed while no
 * Redis was configured) is a row as well, but one is enough.  Writers look
 * whether a committed one is there; they hold the lapse lock in a mode that they
 * share, so that the worker, which takes it alone, never removes the note
 * between somebody's look and that somebody's commit.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/outbox.hpp"

#include "core/invalidation/item.hpp"
#include "ext/invalidation/tables.hpp"
#include "pg/objects.hpp"
#include "pg/worker_table.hpp"

extern "C" {
#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/skey.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "storage/lock.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
}

namespace cache_ext::invalidation {

constexpr int kOutboxColumns = 4;
constexpr int kRowsAtOnce = 64;
constexpr int kProbeLimit = 64;

/* Advisory lock tags of ours differ from the users' (1 and 2) in their last field. */
constexpr uint16 kLockFamily = 0xCE;
constexpr uint32 kLapseLock = 1;

Oid
internal_table(const char *name)
{
	Oid schema = pg::internal_schema();

	return OidIsValid(schema) ? get_relname_relid(name, schema) : InvalidOid;
}

bool
outbox_exists()
{
	return pg::objects_fit() && OidIsValid(internal_table("outbox"));
}

/* The outbox and its only index. */
struct OpenOutbox
{
	Relation heap;
	Relation index;

	explicit OpenOutbox(LOCKMODE lock)
	{
		Oid table = internal_table("outbox");

		if (!OidIsValid(table))
			ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
			                errmsg("extension \"cache_ext\" is not installed in this database")));
		heap = table_open(table, lock);

		List *indexes = RelationGetIndexList(heap);

		index = index_open(linitial_oid(indexes), lock);
		list_free(indexes);
	}

	/* Locks stay to the end of the transaction. */
	void close()
	{
		index_close(index, NoLock);
		table_close(heap, NoLock);
	}
};

void
insert_outbox_rows(const NewRow *rows, int count)
{
	/* A table with values out of line asks for one, and at PRE_COMMIT there is none any more. */
	bool pushed = !ActiveSnapshotSet();

	if (pushed)
		PushActiveSnapshot(GetTransactionSnapshot());

	OpenOutbox outbox(RowExclusiveLock);
	IndexInfo *info = BuildIndexInfo(outbox.index);
	CommandId command = GetCurrentCommandId(true);
	TimestampTz now = GetCurrentTimestamp();
	TupleTableSlot *slots[kRowsAtOnce];
	int slot_count = Min(count, kRowsAtOnce);

	for (int i = 0; i < slot_count; ++i)
		slots[i] = MakeSingleTupleTableSlot(RelationGetDescr(outbox.heap), &TTSOpsHeapTuple);

	for (int done = 0; done < count; done += slot_count)
	{
		int n = Min(slot_count, count - done);

		for (int i = 0; i < n; ++i)
		{
			const NewRow &row = rows[done + i];
			auto *payload = static_cast<bytea *>(palloc(VARHDRSZ + row.length));
			bool nulls[kOutboxColumns] = {};

			SET_VARSIZE(payload, VARHDRSZ + row.length);
			memcpy(VARDATA(payload), row.payload, row.length);

			Datum values[kOutboxColumns] = {
			    Int32GetDatum(static_cast<int32>(row.bucket)), Int32GetDatum(row.items),
			    TimestampTzGetDatum(row.at != 0 ? row.at : now), PointerGetDatum(payload)};

			ExecStoreHeapTuple(heap_form_tuple(RelationGetDescr(outbox.heap), values, nulls),
			                   slots[i], true);
			pfree(payload);
		}
		if (n == 1)
			heap_insert(outbox.heap, ExecFetchSlotHeapTuple(slots[0], true, nullptr), command, 0,
			            nullptr);
		else
			heap_multi_insert(outbox.heap, slots, n, command, 0, nullptr);

		for (int i = 0; i < n; ++i)
		{
			Datum value = Int32GetDatum(static_cast<int32>(rows[done + i].bucket));
			bool null = false;
			ItemPointer tid = n == 1 ? &ExecFetchSlotHeapTuple(slots[0], true, nullptr)->t_self
			                         : &slots[i]->tts_tid;

			index_insert(outbox.index, &value, &null, tid, outbox.heap, UNIQUE_CHECK_NO, false,
			             info);
		}
	}

	for (int i = 0; i < slot_count; ++i)
		ExecDropSingleTupleTableSlot(slots[i]);
	outbox.close();
	if (pushed)
		PopActiveSnapshot();
}

static IndexScanDesc
begin_bucket_scan(const OpenOutbox &outbox, Snapshot snapshot)
{
#if PG_VERSION_NUM >= 180000
	return index_beginscan(outbox.heap, outbox.index, snapshot, nullptr, 1, 0);
#else
	return index_beginscan(outbox.heap, outbox.index, snapshot, 1, 0);
#endif
}

enum class Probe
{
	kNone,
	kFound,
	kTooMany /* gave up */
};

/* Look for a row of the bucket; looks is how many index entries may still be visited. */
static Probe
probe_bucket(IndexScanDesc scan, TupleTableSlot *slot, uint32 bucket, int &looks)
{
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT4EQ,
	            Int32GetDatum(static_cast<int32>(bucket)));
	index_rescan(scan, &key, 1, nullptr, 0);
	while (index_getnext_tid(scan, ForwardScanDirection) != nullptr)
	{
		if (looks-- <= 0)
			return Probe::kTooMany;
		if (index_fetch_heap(scan, slot))
		{
			ExecClearTuple(slot);
			return Probe::kFound;
		}
	}
	return Probe::kNone;
}

bool
outbox_pending(const uint32 *buckets, int count, Snapshot snapshot)
{
	OpenOutbox outbox(AccessShareLock);
	IndexScanDesc scan = begin_bucket_scan(outbox, snapshot);
	TupleTableSlot *slot = table_slot_create(outbox.heap, nullptr);
	int looks = kProbeLimit;
	Probe found = probe_bucket(scan, slot, kBucketOfLapse, looks);

	for (int i = 0; i < count && found == Probe::kNone; ++i)
		found = probe_bucket(scan, slot, buckets[i], looks);

	ExecDropSingleTupleTableSlot(slot);
	index_endscan(scan);
	outbox.close();
	return found != Probe::kNone;
}

static void
set_lapse_tag(LOCKTAG *tag)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, kLapseLock, 0, kLockFamily);
}

/* The committed note that this backend has last seen: in which outbox, before which taking. */
static Oid noted_outbox = InvalidOid;
static uint64 noted_before = 0;

void
insert_lapse()
{
	LOCKTAG tag;
	uint64 taken;

	set_lapse_tag(&tag);
	(void) LockAcquire(&tag, RowExclusiveLock, false, false);

	/* The worker counts a taking while it holds the lock, so under ours the count stands. */
	bool counted = pg::lapses_taken(&taken);
	if (counted && taken == noted_before && OidIsValid(noted_outbox) &&
	    noted_outbox == internal_table("outbox"))
		return;

	/*
	 * SnapshotSelf: what is committed now.  A snapshot of the serializable kind
	 * would leave predicate locks that later fail somebody for nothing.
	 */
	OpenOutbox outbox(RowExclusiveLock);
	IndexScanDesc scan = begin_bucket_scan(outbox, SnapshotSelf);
	TupleTableSlot *slot = table_slot_create(outbox.heap, nullptr);
	int looks = kProbeLimit;
	Probe found = probe_bucket(scan, slot, kBucketOfLapse, looks);

	ExecDropSingleTupleTableSlot(slot);
	index_endscan(scan);
	noted_outbox = InvalidOid;
	if (found == Probe::kFound && counted)
	{
		noted_outbox = RelationGetRelid(outbox.heap);
		noted_before = taken;
	}
	outbox.close();

	if (found != Probe::kFound)
	{
		char item[2] = {static_cast<char>(ItemKind::kLapse), 0};
		NewRow row = {kBucketOfLapse, 0, item, sizeof(item), 0};

		insert_outbox_rows(&row, 1);
	}
}

bool
take_lapse()
{
	LOCKTAG tag;
	bool taken = false;

	set_lapse_tag(&tag);
	if (LockAcquire(&tag, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	pg::note_lapse_taken();

	OpenOutbox outbox(RowExclusiveLock);
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	IndexScanDesc scan = begin_bucket_scan(outbox, snapshot);
	TupleTableSlot *slot = table_slot_create(outbox.heap, nullptr);
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT4EQ,
	            Int32GetDatum(static_cast<int32>(kBucketOfLapse)));
	index_rescan(scan, &key, 1, nullptr, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		simple_heap_delete(outbox.heap, &slot->tts_tid);
		taken = true;
	}
	ExecDropSingleTupleTableSlot(slot);
	index_endscan(scan);
	UnregisterSnapshot(snapshot);
	outbox.close();
	return taken;
}

} /* namespace cache_ext::invalidation */
