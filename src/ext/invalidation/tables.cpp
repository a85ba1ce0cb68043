/*-------------------------------------------------------------------------
 *
 * tables.cpp
 *		The worker's side of the outbox and of its companions; see tables.hpp.
 *
 * One worker a database runs this, in short transactions of its own.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/tables.hpp"

#include "core/invalidation/item.hpp"

extern "C" {
#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/indexing.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
}

namespace cache_ext::invalidation {

namespace {

/* Columns as the extension's script declares them. */
namespace retained_column {
enum
{
	at,
	incarnation,
	items,
	payload,
	count
};
}
namespace repeat_column {
enum
{
	due,
	items,
	payload,
	count
};
}
namespace state_column {
enum
{
	one,
	epoch,
	incarnation,
	count
};
}
namespace delivery_column {
enum
{
	one,
	seq,
	clean,
	delivered,
	retried,
	collapsed,
	last_delivery,
	last_error,
	last_error_at,
	count
};
}

constexpr int kMaxColumns = delivery_column::count;

/* All rows of a table, one after the other, in file order. */
struct Scan
{
	Relation heap;
	TableScanDesc scan;
	Snapshot registered;

	Scan(Relation relation, Snapshot snapshot, bool fresh) : heap(relation), registered(nullptr)
	{
		if (fresh)
			snapshot = registered = RegisterSnapshot(snapshot);
		scan = table_beginscan_strat(heap, snapshot, 0, nullptr, true, false);
	}

	HeapTuple next() { return heap_getnext(scan, ForwardScanDirection); }

	void end()
	{
		table_endscan(scan);
		if (registered != nullptr)
			UnregisterSnapshot(registered);
	}
};

/* The row of a table that has exactly one, copied. */
HeapTuple
only_row(Relation heap, Snapshot snapshot, bool fresh)
{
	Scan scan(heap, snapshot, fresh);
	HeapTuple row = scan.next();

	if (row != nullptr)
		row = heap_copytuple(row);
	scan.end();
	if (row == nullptr)
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
		                errmsg("table \"%s\" has lost its row", RelationGetRelationName(heap)),
		                errhint("Drop the extension and create it again.")));
	return row;
}

/* Replace columns of such a row. */
template <typename Change>
void
change_only_row(const char *table, Change change)
{
	Relation heap = open_table(table, RowExclusiveLock);
	HeapTuple row = only_row(heap, GetLatestSnapshot(), true);
	Datum values[kMaxColumns];
	bool nulls[kMaxColumns];

	heap_deform_tuple(row, RelationGetDescr(heap), values, nulls);
	change(values, nulls);

	HeapTuple changed = heap_form_tuple(RelationGetDescr(heap), values, nulls);

	CatalogTupleUpdate(heap, &row->t_self, changed);
	table_close(heap, NoLock);
}

} /* namespace */

Oid
read_outbox(uint32 from_page, TakeRow take, void *arg)
{
	Relation heap = open_table("outbox", AccessShareLock);
	Oid file = heap->rd_rel->relfilenode;
	Scan scan(heap, GetLatestSnapshot(), true);
	HeapTuple tuple;
	uint32 pages = RelationGetNumberOfBlocks(heap);
	bool more = from_page == 0 || from_page < pages;

	if (from_page > 0 && more)
		heap_setscanlimits(scan.scan, from_page, pages - from_page);
	while (more && (tuple = scan.next()) != nullptr)
	{
		Datum values[outbox_column::count];
		bool nulls[outbox_column::count];
		OutboxRow row;

		CHECK_FOR_INTERRUPTS();
		heap_deform_tuple(tuple, RelationGetDescr(heap), values, nulls);
		row.tid = tuple->t_self;
		row.items = DatumGetInt32(values[outbox_column::items]);
		row.at = DatumGetTimestampTz(values[outbox_column::at]);
		row.xmin = HeapTupleHeaderGetXmin(tuple->t_data);

		bytea *payload = DatumGetByteaPCopy(values[outbox_column::payload]);

		row.payload = VARDATA_ANY(payload);
		row.length = VARSIZE_ANY_EXHDR(payload);
		more = take(row, arg);
	}
	scan.end();
	table_close(heap, AccessShareLock);
	return file;
}

void
delete_outbox_rows(Oid file, const ItemPointerData *tids, int count)
{
	Relation heap = open_table("outbox", RowExclusiveLock);

	if (heap->rd_rel->relfilenode != file)
		ereport(ERROR, (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
		                errmsg("outbox was rewritten during a delivery, which is repeated")));
	for (int i = 0; i < count; ++i)
	{
		ItemPointerData tid = tids[i];

		simple_heap_delete(heap, &tid);
	}
	table_close(heap, NoLock);
}

bool
outbox_occupied()
{
	Relation heap = open_table("outbox", AccessShareLock);
	SnapshotData dirty;

	InitDirtySnapshot(dirty);

	Scan scan(heap, &dirty, false);
	bool found = false;

	for (HeapTuple tuple = scan.next(); tuple != nullptr && !found; tuple = scan.next())
	{
		bool null;

		found = DatumGetInt32(heap_getattr(tuple, outbox_column::items + 1, RelationGetDescr(heap),
		                                   &null)) != 0;
	}
	scan.end();
	table_close(heap, AccessShareLock);
	return found;
}

uint32
outbox_pages()
{
	Relation heap = open_table("outbox", AccessShareLock);
	uint32 pages = RelationGetNumberOfBlocks(heap);

	table_close(heap, AccessShareLock);
	return pages;
}

RedisState
read_redis_state(Snapshot snapshot)
{
	Relation heap = open_table("redis_state", AccessShareLock);
	HeapTuple row = only_row(heap, snapshot, false);
	Datum values[state_column::count];
	bool nulls[state_column::count];
	RedisState state = {};

	heap_deform_tuple(row, RelationGetDescr(heap), values, nulls);
	state.epoch = static_cast<uint64>(DatumGetInt64(values[state_column::epoch]));
	if (!nulls[state_column::incarnation])
	{
		bytea *incarnation = DatumGetByteaPP(values[state_column::incarnation]);

		if (VARSIZE_ANY_EXHDR(incarnation) == Digest::kSize)
		{
			state.has_incarnation = true;
			state.incarnation = Digest::from_bytes({VARDATA_ANY(incarnation), Digest::kSize});
		}
	}
	table_close(heap, AccessShareLock);
	return state;
}

/* The digest's bytes without an object that would need a destructor. */
static Datum
digest_datum(const Digest &digest)
{
	char bytes[Digest::kSize];

	for (int i = 0; i < 8; ++i)
	{
		bytes[i] = static_cast<char>(digest.high >> (56 - 8 * i));
		bytes[8 + i] = static_cast<char>(digest.low >> (56 - 8 * i));
	}
	return PointerGetDatum(make_bytea(bytes, sizeof(bytes)));
}

void
write_redis_state(const RedisState &state)
{
	change_only_row("redis_state", [&state](Datum *values, bool *nulls) {
		values[state_column::epoch] = Int64GetDatum(static_cast<int64>(state.epoch));
		nulls[state_column::incarnation] = !state.has_incarnation;
		if (state.has_incarnation)
			values[state_column::incarnation] = digest_datum(state.incarnation);
	});
}

void
insert_retained(const Digest &incarnation, int32 items, const char *payload, size_t length)
{
	Relation heap = open_table("retained", RowExclusiveLock);
	Datum values[retained_column::count];
	bool nulls[retained_column::count] = {};

	values[retained_column::at] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[retained_column::incarnation] = digest_datum(incarnation);
	values[retained_column::items] = Int32GetDatum(items);
	values[retained_column::payload] = PointerGetDatum(make_bytea(payload, length));

	simple_heap_insert(heap, heap_form_tuple(RelationGetDescr(heap), values, nulls));
	table_close(heap, NoLock);
}

void
requeue_retained()
{
	Relation heap = open_table("retained", RowExclusiveLock);
	Scan scan(heap, GetLatestSnapshot(), true);

	for (HeapTuple tuple = scan.next(); tuple != nullptr; tuple = scan.next())
	{
		Datum values[retained_column::count];
		bool nulls[retained_column::count];

		CHECK_FOR_INTERRUPTS();
		heap_deform_tuple(tuple, RelationGetDescr(heap), values, nulls);

		bytea *payload = DatumGetByteaPP(values[retained_column::payload]);
		NewRow row = {kEveryBucket,
		              1,
		              DatumGetInt32(values[retained_column::items]),
		              VARDATA_ANY(payload),
		              VARSIZE_ANY_EXHDR(payload),
		              0};

		insert_outbox_rows(&row, 1);
		simple_heap_delete(heap, &tuple->t_self);
	}
	scan.end();
	table_close(heap, NoLock);
}

int64
purge_retained(TimestampTz before)
{
	Relation heap = open_table("retained", RowExclusiveLock);
	int64 count = 0;
	Scan scan(heap, GetLatestSnapshot(), true);

	for (HeapTuple tuple = scan.next(); tuple != nullptr; tuple = scan.next())
	{
		bool null;
		TimestampTz at = DatumGetTimestampTz(
		    heap_getattr(tuple, retained_column::at + 1, RelationGetDescr(heap), &null));

		CHECK_FOR_INTERRUPTS();
		if (at >= before)
			continue;
		simple_heap_delete(heap, &tuple->t_self);
		++count;
	}
	scan.end();
	table_close(heap, NoLock);
	return count;
}

bool
any_retained()
{
	Relation heap = open_table("retained", AccessShareLock);
	Scan scan(heap, GetLatestSnapshot(), true);
	bool found = scan.next() != nullptr;

	scan.end();
	table_close(heap, AccessShareLock);
	return found;
}

bool
retained_removes(std::string_view key, Snapshot snapshot)
{
	Relation heap = open_table("retained", AccessShareLock);
	Scan scan(heap, snapshot, false);
	bool found = false;

	for (HeapTuple tuple = scan.next(); tuple != nullptr && !found; tuple = scan.next())
	{
		bool null;
		bytea *payload = DatumGetByteaPP(
		    heap_getattr(tuple, retained_column::payload + 1, RelationGetDescr(heap), &null));

		CHECK_FOR_INTERRUPTS();
		found = removes_key({VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload)}, key);
	}
	scan.end();
	table_close(heap, AccessShareLock);
	return found;
}

void
insert_repeat(TimestampTz due, int32 items, const char *payload, size_t length)
{
	Relation heap = open_table("repeat", RowExclusiveLock);
	Datum values[repeat_column::count];
	bool nulls[repeat_column::count] = {};

	values[repeat_column::due] = TimestampTzGetDatum(due);
	values[repeat_column::items] = Int32GetDatum(items);
	values[repeat_column::payload] = PointerGetDatum(make_bytea(payload, length));

	simple_heap_insert(heap, heap_form_tuple(RelationGetDescr(heap), values, nulls));
	table_close(heap, NoLock);
}

TimestampTz
queue_due_repeats(TimestampTz now)
{
	Relation heap = open_table("repeat", RowExclusiveLock);
	Scan scan(heap, GetLatestSnapshot(), true);
	TimestampTz next = 0;

	for (HeapTuple tuple = scan.next(); tuple != nullptr; tuple = scan.next())
	{
		Datum values[repeat_column::count];
		bool nulls[repeat_column::count];

		CHECK_FOR_INTERRUPTS();
		heap_deform_tuple(tuple, RelationGetDescr(heap), values, nulls);

		TimestampTz due = DatumGetTimestampTz(values[repeat_column::due]);

		if (due > now)
		{
			next = next == 0 ? due : Min(next, due);
			continue;
		}

		bytea *payload = DatumGetByteaPP(values[repeat_column::payload]);
		NewRow row = {kEveryBucket,
		              1,
		              DatumGetInt32(values[repeat_column::items]),
		              VARDATA_ANY(payload),
		              VARSIZE_ANY_EXHDR(payload),
		              0};

		insert_outbox_rows(&row, 1);
		simple_heap_delete(heap, &tuple->t_self);
	}
	scan.end();
	table_close(heap, NoLock);
	return next;
}

DeliveryState
read_delivery()
{
	Relation heap = open_table("delivery", AccessShareLock);
	HeapTuple row = only_row(heap, GetLatestSnapshot(), true);
	Datum values[delivery_column::count];
	bool nulls[delivery_column::count];
	DeliveryState state = {};

	heap_deform_tuple(row, RelationGetDescr(heap), values, nulls);
	state.seq = DatumGetInt64(values[delivery_column::seq]);
	state.clean = DatumGetBool(values[delivery_column::clean]);
	state.delivered = DatumGetInt64(values[delivery_column::delivered]);
	state.retried = DatumGetInt64(values[delivery_column::retried]);
	state.collapsed = DatumGetInt64(values[delivery_column::collapsed]);
	if (!nulls[delivery_column::last_delivery])
		state.last_delivery = DatumGetTimestampTz(values[delivery_column::last_delivery]);
	table_close(heap, AccessShareLock);
	return state;
}

void
write_delivery(const DeliveryState &state)
{
	change_only_row("delivery", [&state](Datum *values, bool *nulls) {
		values[delivery_column::seq] = Int64GetDatum(state.seq);
		values[delivery_column::clean] = BoolGetDatum(state.clean);
		values[delivery_column::delivered] = Int64GetDatum(state.delivered);
		values[delivery_column::retried] = Int64GetDatum(state.retried);
		values[delivery_column::collapsed] = Int64GetDatum(state.collapsed);
		nulls[delivery_column::last_delivery] = state.last_delivery == 0;
		values[delivery_column::last_delivery] = TimestampTzGetDatum(state.last_delivery);
	});
}

void
write_delivery_error(const char *message, int64 retried)
{
	change_only_row("delivery", [&](Datum *values, bool *nulls) {
		values[delivery_column::retried] = Int64GetDatum(retried);
		values[delivery_column::last_error] = CStringGetTextDatum(message);
		values[delivery_column::last_error_at] = TimestampTzGetDatum(GetCurrentTimestamp());
		nulls[delivery_column::last_error] = nulls[delivery_column::last_error_at] = false;
	});
}

} /* namespace cache_ext::invalidation */
