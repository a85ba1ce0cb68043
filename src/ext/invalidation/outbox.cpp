/*-------------------------------------------------------------------------
 *
 * outbox.cpp
 *		Writing and probing the outbox: the writers' and the readers' side.
 *
 * Rows are put in and looked up without SPI, and writers wait for nobody: an
 * outbox row conflicts with no other, and there is no index to keep.  The worker
 * empties the table within milliseconds and keeps its file small, so a reader
 * looks at all of it; when it is large, a backlog, nothing is trusted.
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

#include <algorithm>

#include "core/invalidation/item.hpp"
#include "ext/invalidation/tables.hpp"
#include "pg/objects.hpp"
#include "pg/worker_table.hpp"

extern "C" {
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "storage/bufmgr.h"
#include "storage/lock.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
}

namespace cache_ext::invalidation {

constexpr BlockNumber kPagesToLookAt = 2 * kPagesOfSmallOutbox;

/* Advisory lock tags of ours differ from the users' (1 and 2) in their last field. */
constexpr uint16 kLockFamily = 0xCE;
constexpr uint32 kLapseLock = 1;

bool
outbox_exists()
{
	return pg::objects_fit() && OidIsValid(pg::internal_table("outbox"));
}

Relation
open_table(const char *name, LOCKMODE lock)
{
	Oid table = pg::internal_table(name);

	if (!OidIsValid(table))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
		                errmsg("extension \"cache_ext\" is not installed in this database")));
	return table_open(table, lock);
}

bytea *
make_bytea(const void *bytes, size_t length)
{
	auto *result = static_cast<bytea *>(palloc(VARHDRSZ + length));

	SET_VARSIZE(result, VARHDRSZ + length);
	memcpy(VARDATA(result), bytes, length);
	return result;
}

static HeapTuple
form_row(Relation outbox, const NewRow &row, TimestampTz now)
{
	bool nulls[outbox_column::count] = {};
	Datum values[outbox_column::count];

	bytea *buckets = make_bytea(row.buckets, row.bucket_count * sizeof(uint16));
	bytea *payload = make_bytea(row.payload, row.length);

	values[outbox_column::buckets] = PointerGetDatum(buckets);
	values[outbox_column::items] = Int32GetDatum(row.items);
	values[outbox_column::at] = TimestampTzGetDatum(row.at != 0 ? row.at : now);
	values[outbox_column::payload] = PointerGetDatum(payload);

	HeapTuple tuple = heap_form_tuple(RelationGetDescr(outbox), values, nulls);

	pfree(buckets);
	pfree(payload);
	return tuple;
}

void
insert_outbox_rows(const NewRow *rows, int count)
{
	/* A table with values out of line asks for one, and at PRE_COMMIT there is none any more. */
	bool pushed = !ActiveSnapshotSet();

	if (pushed)
		PushActiveSnapshot(GetTransactionSnapshot());

	Relation outbox = open_table("outbox", RowExclusiveLock);
	CommandId command = GetCurrentCommandId(true);
	TimestampTz now = GetCurrentTimestamp();

	if (count == 1)
		heap_insert(outbox, form_row(outbox, rows[0], now), command, 0, nullptr);
	else
	{
		auto **slots = static_cast<TupleTableSlot **>(palloc(count * sizeof(TupleTableSlot *)));

		for (int i = 0; i < count; ++i)
		{
			slots[i] = MakeSingleTupleTableSlot(RelationGetDescr(outbox), &TTSOpsHeapTuple);
			ExecStoreHeapTuple(form_row(outbox, rows[i], now), slots[i], true);
		}
		heap_multi_insert(outbox, slots, count, command, 0, nullptr);
		for (int i = 0; i < count; ++i)
			ExecDropSingleTupleTableSlot(slots[i]);
	}
	table_close(outbox, NoLock);
	if (pushed)
		PopActiveSnapshot();
}

/* A row for one of these buckets?  They are in ascending order. */
static bool
is_about(HeapTuple row, TupleDesc columns, const uint32 *buckets, int count)
{
	bool null;
	bytea *about = DatumGetByteaPP(heap_getattr(row, outbox_column::buckets + 1, columns, &null));
	const char *bytes = VARDATA_ANY(about);
	Size size = VARSIZE_ANY_EXHDR(about);

	for (Size at = 0; at < size; at += sizeof(uint16))
	{
		uint16 bucket;

		memcpy(&bucket, bytes + at, sizeof(bucket));
		if (std::binary_search(buckets, buckets + count, bucket))
			return true;
	}
	return false;
}

bool
outbox_pending(const uint32 *buckets, int count, Snapshot snapshot)
{
	Relation outbox = open_table("outbox", AccessShareLock);
	BlockNumber pages = RelationGetNumberOfBlocks(outbox);
	bool pending = pages > kPagesToLookAt;

	/* At SERIALIZABLE that would lock the table against all writers; SnapshotSelf leaves no trace.
	 */
	if (IsolationIsSerializable())
		snapshot = SnapshotSelf;
	if (pages > 0 && !pending)
	{
		TableScanDesc scan = table_beginscan_strat(outbox, snapshot, 0, nullptr, true, false);
		HeapTuple row;

		while (!pending && (row = heap_getnext(scan, ForwardScanDirection)) != nullptr)
			pending = is_about(row, RelationGetDescr(outbox), buckets, count);
		table_endscan(scan);
	}
	table_close(outbox, AccessShareLock);
	return pending;
}

void
mark_pending_removals(const std::string_view *keys, int count, bool *removed, Snapshot snapshot)
{
	Relation outbox = open_table("outbox", AccessShareLock);
	TupleDesc columns = RelationGetDescr(outbox);

	if (RelationGetNumberOfBlocks(outbox) > 0)
	{
		auto *buckets = static_cast<uint32 *>(palloc(sizeof(uint32) * (count + 1)));

		for (int i = 0; i < count; ++i)
			buckets[i] = bucket_of(NameKind::kKey, keys[i]);
		buckets[count] = kBucketOfAll;
		std::sort(buckets, buckets + count + 1);

		/* As in outbox_pending(). */
		TableScanDesc scan = table_beginscan_strat(
		    outbox, IsolationIsSerializable() ? SnapshotSelf : snapshot, 0, nullptr, true, false);
		HeapTuple row;

		while ((row = heap_getnext(scan, ForwardScanDirection)) != nullptr)
		{
			CHECK_FOR_INTERRUPTS();
			if (!is_about(row, columns, buckets, count + 1))
				continue;

			bool null;
			bytea *payload =
			    DatumGetByteaPP(heap_getattr(row, outbox_column::payload + 1, columns, &null));

			mark_removed({VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload)}, keys, count, removed);
			if (count == 1 && removed[0])
				break;
		}
		table_endscan(scan);
		pfree(buckets);
	}
	table_close(outbox, AccessShareLock);
}

bool
removal_pending(std::string_view key, Snapshot snapshot, bool also_retained)
{
	bool pending = false;

	mark_pending_removals(&key, 1, &pending, snapshot);
	return pending || (also_retained && retained_removes(key, snapshot));
}

static bool
is_lapse(HeapTuple row, TupleDesc columns)
{
	bool null;

	return DatumGetInt32(heap_getattr(row, outbox_column::items + 1, columns, &null)) == 0;
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
	    noted_outbox == pg::internal_table("outbox"))
		return;

	/*
	 * SnapshotSelf: what is committed now.  A snapshot of the serializable kind
	 * would leave predicate locks that later fail somebody for nothing.
	 */
	Relation outbox = open_table("outbox", RowExclusiveLock);
	TableScanDesc scan = table_beginscan_strat(outbox, SnapshotSelf, 0, nullptr, true, false);
	bool found = false;
	HeapTuple row;

	while (!found && (row = heap_getnext(scan, ForwardScanDirection)) != nullptr)
		found = is_lapse(row, RelationGetDescr(outbox));
	table_endscan(scan);
	noted_outbox = found && counted ? RelationGetRelid(outbox) : InvalidOid;
	noted_before = taken;
	table_close(outbox, NoLock);

	if (!found)
	{
		char item[2] = {static_cast<char>(ItemKind::kLapse), 0};
		NewRow row = {kEveryBucket, 1, 0, item, sizeof(item), 0};

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

	Relation outbox = open_table("outbox", RowExclusiveLock);
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan_strat(outbox, snapshot, 0, nullptr, true, false);
	HeapTuple row;

	/* One, or one of each transaction that has looked before the first had committed. */
	while ((row = heap_getnext(scan, ForwardScanDirection)) != nullptr)
		if (is_lapse(row, RelationGetDescr(outbox)))
		{
			simple_heap_delete(outbox, &row->t_self);
			taken = true;
		}
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(outbox, NoLock);
	return taken;
}

} /* namespace cache_ext::invalidation */
