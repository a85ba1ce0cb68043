/*-------------------------------------------------------------------------
 *
 * store.cpp
 *		Access to totals and part tables; see store.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/store.hpp"

extern "C" {
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/index.h"
#include "common/hashfn.h"
#include "utils/fmgroids.h"
#include "access/xact.h"
#include "access/genam.h"
#include "catalog/namespace.h"
#include "executor/executor.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
}

namespace cache_ext::statistics {

/* A key that was there takes back what four new ones gave: the dead row costs three look-ups. */
constexpr int kNewnessWorthTrying = 8;
constexpr int kMostNewness = 32;
constexpr int kKnownCosts = 4;

[[noreturn]] static void
report_missing_index(const Store *store)
{
	ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
	                errmsg("index of \"%s.%s\" is missing", kInternalSchema,
	                       RelationGetRelationName(store->table)),
	                errhint("Drop and create the statistic anew.")));
	pg_unreachable();
}

/* The index that begins with these columns of the table; nullptr: with its key. */
static Relation
open_index(const Store *store, const int *columns)
{
	ListCell *cell;

	foreach (cell, RelationGetIndexList(store->table))
	{
		Relation index = index_open(lfirst_oid(cell), store->lock);
		Form_pg_index form = index->rd_index;
		bool matches = columns != nullptr ? form->indnkeyatts >= store->key_count
		                                  : form->indisunique || store->hashes != nullptr;

		for (int i = 0; matches && columns != nullptr && i < store->key_count; ++i)
			matches = form->indkey.values[i] == columns[i] + 1;
		if (matches)
			return index;
		index_close(index, NoLock);
	}
	report_missing_index(store);
}

static void
prepare_hashes(Store *store)
{
	store->hashes = static_cast<FmgrInfo *>(palloc0(sizeof(FmgrInfo) * store->key_count));
	for (int i = 0; i < store->key_count; ++i)
		if (OidIsValid(store->keys[i].hash_proc))
			fmgr_info(store->keys[i].hash_proc, &store->hashes[i]);
}

static Store *
open_store(Oid table, const KeyType *keys, const int *columns, int key_count, bool by_hash,
           LOCKMODE lock)
{
	auto *store = static_cast<Store *>(palloc0(sizeof(Store)));

	store->context = CurrentMemoryContext;
	store->table = table_open(table, lock);
	store->keys = keys;
	store->key_count = key_count;
	store->lock = lock;
	store->slot = table_slot_create(store->table, nullptr);
	store->equality = static_cast<FmgrInfo *>(palloc0(sizeof(FmgrInfo) * Max(key_count, 1)));
	for (int i = 0; i < key_count; ++i)
		fmgr_info(keys[i].equality_proc, &store->equality[i]);
	if (by_hash)
		prepare_hashes(store);
	if (key_count > 0)
		store->index = open_index(store, columns);
	return store;
}

Store *
open_totals(const Definition *definition, LOCKMODE lock)
{
	return open_store(definition->totals, definition->groups, nullptr, definition->group_count,
	                  false, lock);
}

Store *
open_part(const Definition *definition, int part, LOCKMODE lock)
{
	const Part &wanted = definition->parts[part];

	return open_store(wanted.table, wanted.keys, nullptr, wanted.key_count, wanted.by_hash, lock);
}

Store *
open_part_by(const Definition *definition, int part, const int *columns, int count, LOCKMODE lock)
{
	const Part &wanted = definition->parts[part];
	auto *keys = static_cast<KeyType *>(palloc(sizeof(KeyType) * count));

	for (int i = 0; i < count; ++i)
		keys[i] = wanted.keys[columns[i]];
	return open_store(wanted.table, keys, columns, count, false, lock);
}

/* ---- new rows, many at a time ---- */

constexpr int kNewRows = 250;

struct NewRows
{
	MemoryContext context; /* of the rows */
	IndexInfo *index;
	int count;
	TupleTableSlot *slots[kNewRows];
	Datum hashes[kNewRows];
};

static void
insert_new_rows(Store *store)
{
	NewRows *rows = store->new_rows;
	bool null = false;

	if (rows == nullptr || rows->count == 0)
		return;
	MemoryContext caller = MemoryContextSwitchTo(rows->context);
	table_multi_insert(store->table, rows->slots, rows->count, GetCurrentCommandId(true), 0,
	                   nullptr);
	for (int i = 0; i < rows->count; ++i)
	{
		(void) index_insert(store->index, &rows->hashes[i], &null, &rows->slots[i]->tts_tid,
		                    store->table, UNIQUE_CHECK_NO, false, rows->index);
		ExecClearTuple(rows->slots[i]);
	}
	rows->count = 0;
	MemoryContextSwitchTo(caller);
	MemoryContextReset(rows->context);
}

static void
end_new_rows(Store *store)
{
	NewRows *rows = store->new_rows;

	insert_new_rows(store);
	for (int i = 0; rows != nullptr && i < kNewRows && rows->slots[i] != nullptr; ++i)
		ExecDropSingleTupleTableSlot(rows->slots[i]);
}

static NewRows *
new_rows_of(Store *store)
{
	if (store->new_rows == nullptr)
	{
		MemoryContext caller = MemoryContextSwitchTo(store->context);
		auto *rows = static_cast<NewRows *>(palloc0(sizeof(NewRows)));

		rows->context = AllocSetContextCreate(store->context, "cache_ext new rows of a part",
		                                      ALLOCSET_DEFAULT_SIZES);
		rows->index = BuildIndexInfo(store->index);
		store->new_rows = rows;
		MemoryContextSwitchTo(caller);
	}
	return store->new_rows;
}

static void
insert_later(Store *store, const Datum *values, const bool *nulls)
{
	NewRows *rows = new_rows_of(store);
	TupleDesc desc = RelationGetDescr(store->table);

	if (rows->slots[rows->count] == nullptr)
	{
		MemoryContext caller = MemoryContextSwitchTo(store->context);

		rows->slots[rows->count] = MakeSingleTupleTableSlot(desc, &TTSOpsHeapTuple);
		MemoryContextSwitchTo(caller);
	}
	MemoryContext caller = MemoryContextSwitchTo(rows->context);
	HeapTuple tuple = heap_form_tuple(desc, const_cast<Datum *>(values), const_cast<bool *>(nulls));

	ExecStoreHeapTuple(tuple, rows->slots[rows->count], true); /* and not copied once more */
	rows->hashes[rows->count++] = values[desc->natts - 1];
	MemoryContextSwitchTo(caller);
	if (rows->count == kNewRows)
		insert_new_rows(store);
}

/* ---- looking keys up ---- */

static void
end_walk(Store *store)
{
	if (store->scan != nullptr)
		index_endscan(store->scan);
	store->scan = nullptr;
}

void
close_store(Store *store)
{
	if (store == nullptr)
		return;
	end_new_rows(store);
	ExecDropSingleTupleTableSlot(store->slot);
	end_walk(store);
	if (store->indexes != nullptr)
		CatalogCloseIndexes(store->indexes);
	if (store->index != nullptr)
		index_close(store->index, NoLock);
	table_close(store->table, NoLock);
}

/* In the store's context. */
static void
begin_scan(Store *store, Snapshot snapshot, ScanKey keys, int count)
{
	if (store->scan != nullptr &&
	    (store->scan->xs_snapshot != snapshot || store->scan->numberOfKeys != count))
		end_walk(store);
	if (store->scan == nullptr)
	{
#if PG_VERSION_NUM >= 180000
		store->scan = index_beginscan(store->table, store->index, snapshot, nullptr, count, 0);
#else
		store->scan = index_beginscan(store->table, store->index, snapshot, count, 0);
#endif
	}
	index_rescan(store->scan, keys, count, nullptr, 0);
}

void
begin_walk(Store *store, Snapshot snapshot, const Datum *values, const bool *nulls, int count)
{
	ScanKeyData keys[INDEX_MAX_KEYS];
	MemoryContext caller = MemoryContextSwitchTo(store->context);

	for (int i = 0; i < count; ++i)
	{
		if (nulls[i])
			ScanKeyEntryInitialize(&keys[i], SK_ISNULL | SK_SEARCHNULL, (AttrNumber) (i + 1),
			                       InvalidStrategy, InvalidOid, InvalidOid, InvalidOid, (Datum) 0);
		else
			ScanKeyEntryInitializeWithInfo(&keys[i], 0, (AttrNumber) (i + 1), BTEqualStrategyNumber,
			                               InvalidOid, store->keys[i].collation,
			                               &store->equality[i], values[i]);
	}

	begin_scan(store, snapshot, keys, count);
	MemoryContextSwitchTo(caller);
}

TupleTableSlot *
next_row(Store *store, ScanDirection direction)
{
	MemoryContext caller = MemoryContextSwitchTo(store->context);
	bool found = index_getnext_slot(store->scan, direction, store->slot);

	MemoryContextSwitchTo(caller);
	if (!found)
		return nullptr;
	slot_getallattrs(store->slot);
	return store->slot;
}

/* Without key columns the table has at most one visible row. */
static TupleTableSlot *
find_single(Store *store, Snapshot snapshot)
{
	TableScanDesc scan = table_beginscan(store->table, snapshot, 0, nullptr);
	bool found = table_scan_getnextslot(scan, ForwardScanDirection, store->slot);

	if (found)
		ExecMaterializeSlot(store->slot);
	table_endscan(scan);
	if (!found)
		return nullptr;
	slot_getallattrs(store->slot);
	return store->slot;
}

static int32
hash_of_key(Store *store, const Datum *values, const bool *nulls)
{
	uint32 hash = 0;

	for (int i = 0; i < store->key_count; ++i)
		hash = hash_combine(
		    hash, nulls[i] ? 0 : hash_of_value(store->keys[i], &store->hashes[i], values[i]));
	return (int32) hash;
}

static bool
has_key(Store *store, const TupleTableSlot *row, const Datum *values, const bool *nulls)
{
	for (int i = 0; i < store->key_count; ++i)
		if (nulls[i] != row->tts_isnull[i] ||
		    (!nulls[i] && !same_value(store, i, values[i], row->tts_values[i])))
			return false;
	return true;
}

static TupleTableSlot *
find_by_hash(Store *store, Snapshot snapshot, const Datum *values, const bool *nulls)
{
	MemoryContext caller = MemoryContextSwitchTo(store->context);
	ScanKeyData key;
	TupleTableSlot *row;

	ScanKeyInit(&key, 1, HTEqualStrategyNumber, F_INT4EQ,
	            Int32GetDatum(hash_of_key(store, values, nulls)));
	begin_scan(store, snapshot, &key, 1);
	MemoryContextSwitchTo(caller);
	do
		row = next_row(store, ForwardScanDirection);
	while (row != nullptr && !has_key(store, row, values, nulls));
	return row;
}

static void
note_newness(Store *store, bool was_new)
{
	store->newness =
	    was_new ? Min(store->newness + 1, kMostNewness) : Max(store->newness - kKnownCosts, 0);
}

TupleTableSlot *
find_row(Store *store, Snapshot snapshot, const Datum *values, const bool *nulls)
{
	if (store->key_count == 0)
		return find_single(store, snapshot);
	if (store->hashes != nullptr)
		return find_by_hash(store, snapshot, values, nulls);
	begin_walk(store, snapshot, values, nulls, store->key_count);

	TupleTableSlot *row = next_row(store, ForwardScanDirection);

	note_newness(store, row == nullptr);
	return row;
}

bool
same_value(Store *store, int column, Datum left, Datum right)
{
	return DatumGetBool(
	    FunctionCall2Coll(&store->equality[column], store->keys[column].collation, left, right));
}

static CatalogIndexState
indexes_of(Store *store)
{
	if (store->indexes == nullptr)
	{
		MemoryContext caller = MemoryContextSwitchTo(store->context);

		store->indexes = CatalogOpenIndexes(store->table);
		MemoryContextSwitchTo(caller);
	}
	return store->indexes;
}

/* Entries in the unique indexes, or in the others; false when a checked key is there already. */
static bool
insert_entries(Store *store, bool unique, IndexUniqueCheck check, const Datum *values,
               const bool *nulls, ItemPointer tid)
{
	CatalogIndexState indexes = indexes_of(store);

	for (int i = 0; i < indexes->ri_NumIndices; ++i)
	{
		IndexInfo *info = indexes->ri_IndexRelationInfo[i];
		Datum keys[INDEX_MAX_KEYS];
		bool key_nulls[INDEX_MAX_KEYS];

		if (info->ii_Unique != unique)
			continue;
		for (int k = 0; k < info->ii_NumIndexAttrs; ++k)
		{
			keys[k] = values[info->ii_IndexAttrNumbers[k] - 1];
			key_nulls[k] = nulls[info->ii_IndexAttrNumbers[k] - 1];
		}

		bool alone = index_insert(indexes->ri_IndexRelationDescs[i], keys, key_nulls, tid,
		                          store->table, check, false, info);

		if (check == UNIQUE_CHECK_PARTIAL && !alone)
			return false;
	}
	return true;
}

int
row_columns(const Store *store, int keys_and_cells)
{
	return keys_and_cells + (store->hashes != nullptr ? 1 : 0);
}

static void
complete_row(Store *store, Datum *values, bool *nulls)
{
	int last = RelationGetNumberOfAttributes(store->table) - 1;

	if (store->hashes == nullptr)
		return;
	values[last] = Int32GetDatum(hash_of_key(store, values, nulls));
	nulls[last] = false;
}

void
insert_into(Store *store, Datum *values, bool *nulls)
{
	if (store->hashes != nullptr)
	{
		complete_row(store, values, nulls);
		insert_later(store, values, nulls);
		return;
	}

	HeapTuple tuple = heap_form_tuple(RelationGetDescr(store->table), values, nulls);

	simple_heap_insert(store->table, tuple);
	(void) insert_entries(store, true, UNIQUE_CHECK_NO, values, nulls, &tuple->t_self);
	(void) insert_entries(store, false, UNIQUE_CHECK_NO, values, nulls, &tuple->t_self);
	heap_freetuple(tuple);
}

bool
try_insert(Store *store, Datum *values, bool *nulls)
{
	HeapTuple tuple = heap_form_tuple(RelationGetDescr(store->table), values, nulls);
	bool alone;

	simple_heap_insert(store->table, tuple);
	alone = insert_entries(store, true, UNIQUE_CHECK_PARTIAL, values, nulls, &tuple->t_self);
	if (alone)
		(void) insert_entries(store, false, UNIQUE_CHECK_NO, values, nulls, &tuple->t_self);
	else
	{
		CommandCounterIncrement(); /* a command does not delete what it has inserted */
		simple_heap_delete(store->table, &tuple->t_self);
	}
	heap_freetuple(tuple);
	note_newness(store, alone);
	return alone;
}

bool
worth_trying(const Store *store)
{
	return store->newness >= kNewnessWorthTrying;
}

void
update_in(Store *store, ItemPointer tid, Datum *values, bool *nulls)
{
	complete_row(store, values, nulls);

	HeapTuple tuple = heap_form_tuple(RelationGetDescr(store->table), values, nulls);

	CatalogTupleUpdateWithInfo(store->table, tid, tuple, indexes_of(store));
	heap_freetuple(tuple);
}

void
delete_from(Store *store, ItemPointer tid)
{
	CatalogTupleDelete(store->table, tid);
}

} /* namespace cache_ext::statistics */
