/*-------------------------------------------------------------------------
 *
 * pending.cpp
 *		Adding up partial rows; see pending.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/pending.hpp"
#include "pg/memory.hpp"

extern "C" {
#include "access/table.h"
#include "access/tableam.h"
#include "utils/datum.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
}

namespace cache_ext::statistics {

constexpr long kInitialBuckets = 64;

/* Types without a hash function: equal values have equal bytes, or all hash alike. */
static Datum
hash_bytes(PG_FUNCTION_ARGS)
{
	auto *key = static_cast<const KeyType *>(fcinfo->flinfo->fn_extra);

	if (!key->equal_is_identical)
		return UInt32GetDatum(0);
	return UInt32GetDatum(datum_image_hash(PG_GETARG_DATUM(0), key->by_value, key->length));
}

static FmgrInfo
substitute_hash(const KeyType *key, MemoryContext context)
{
	FmgrInfo hash = {};

	hash.fn_addr = hash_bytes;
	hash.fn_nargs = 1;
	hash.fn_strict = true;
	hash.fn_mcxt = context;
	hash.fn_extra = const_cast<KeyType *>(key);
	return hash;
}

static TupleHashTable
build_hash(const KeyType *keys, int key_count, TupleDesc desc, MemoryContext context)
{
	auto *columns = static_cast<AttrNumber *>(palloc(sizeof(AttrNumber) * key_count));
	auto *equality = static_cast<Oid *>(palloc(sizeof(Oid) * key_count));
	auto *hashes = static_cast<FmgrInfo *>(palloc(sizeof(FmgrInfo) * key_count));
	auto *collations = static_cast<Oid *>(palloc(sizeof(Oid) * key_count));

	for (int i = 0; i < key_count; ++i)
	{
		columns[i] = (AttrNumber) (i + 1);
		equality[i] = keys[i].equality_proc;
		collations[i] = keys[i].collation;
		if (OidIsValid(keys[i].hash_proc))
			fmgr_info(keys[i].hash_proc, &hashes[i]);
		else
			hashes[i] = substitute_hash(&keys[i], context);
	}

	MemoryContext scratch =
	    AllocSetContextCreate(context, "cache_ext key probe", ALLOCSET_SMALL_SIZES);
#if PG_VERSION_NUM >= 180000
	return BuildTupleHashTable(nullptr, desc, nullptr, key_count, columns, equality, hashes,
	                           collations, kInitialBuckets, sizeof(int64 *), context, context,
	                           scratch, false);
#else
	return BuildTupleHashTableExt(nullptr, desc, key_count, columns, equality, hashes, collations,
	                              kInitialBuckets, 0, context, context, scratch, false);
#endif
}

KeyTable *
make_key_table(const KeyType *keys, int key_count, TupleDesc desc, int cell_count,
               MemoryContext context)
{
	MemoryContext caller = MemoryContextSwitchTo(context);
	auto *table = static_cast<KeyTable *>(palloc0(sizeof(KeyTable)));

	table->context = context;
	table->key_count = key_count;
	table->cell_count = cell_count;
	table->desc = desc;
	if (key_count > 0)
	{
		table->table = build_hash(keys, key_count, desc, context);
		table->probe = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
		table->stored = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	}
	MemoryContextSwitchTo(caller);
	return table;
}

static int64 *
new_cells(KeyTable *table)
{
	++table->entries;
	return static_cast<int64 *>(
	    MemoryContextAllocZero(table->context, sizeof(int64) * table->cell_count));
}

int64 *
key_cells(KeyTable *table, const Datum *values, const bool *nulls, bool create)
{
	if (table->key_count == 0)
	{
		if (table->single == nullptr && create)
			table->single = new_cells(table);
		return table->single;
	}

	bool is_new = false;
	ExecClearTuple(table->probe);
	memcpy(table->probe->tts_values, values, sizeof(Datum) * table->key_count);
	memcpy(table->probe->tts_isnull, nulls, sizeof(bool) * table->key_count);
	ExecStoreVirtualTuple(table->probe);

	TupleHashEntry entry =
	    LookupTupleHashEntry(table->table, table->probe, create ? &is_new : nullptr, nullptr);
	MemoryContextReset(table->table->tempcxt);
	if (entry == nullptr)
		return nullptr;
#if PG_VERSION_NUM >= 180000
	auto **cells = static_cast<int64 **>(TupleHashEntryGetAdditional(table->table, entry));
	if (is_new)
		*cells = new_cells(table);
	return *cells;
#else
	if (is_new)
		entry->additional = new_cells(table);
	return static_cast<int64 *>(entry->additional);
#endif
}

Pending *
make_pending(Definition *definition, MemoryContext context)
{
	MemoryContext caller = MemoryContextSwitchTo(context);
	auto *pending = static_cast<Pending *>(palloc0(sizeof(Pending)));

	pending->definition = definition;
	pending->context = context;
	pending->last_change = DT_NOBEGIN;
	pending->totals =
	    make_key_table(definition->groups, definition->group_count, definition->group_desc,
	                   definition->cell_count + definition->derived_count, context);
	pending->parts =
	    static_cast<KeyTable **>(palloc(sizeof(KeyTable *) * Max(definition->part_count, 1)));
	for (int i = 0; i < definition->part_count; ++i)
	{
		const Part &part = definition->parts[i];

		pending->parts[i] =
		    make_key_table(part.keys, part.key_count, part.key_desc, part.cell_count, context);
	}
	MemoryContextSwitchTo(caller);
	return pending;
}

/* The cells of the key that comes next in the decoder, and which of them are sums. */
static int64 *
cells_of(Pending *pending, int part, Decoder *decoder, const bool **is_sum, int *count)
{
	Definition *d = pending->definition;
	KeyTable *table = part == kTotals ? pending->totals : pending->parts[part];
	const KeyType *types = part == kTotals ? d->groups : d->parts[part].keys;
	Datum values[INDEX_MAX_KEYS];
	bool nulls[INDEX_MAX_KEYS];

	decode_key(decoder, types, table->key_count, values, nulls);
	*is_sum = part == kTotals ? d->cell_is_sum : d->parts[part].cell_is_sum;
	*count = part == kTotals ? d->cell_count : d->parts[part].cell_count;
	return key_cells(table, values, nulls, true);
}

void
add_entry(Pending *pending, int part, Decoder *decoder)
{
	MemoryContext caller = MemoryContextSwitchTo(pending->context);
	const bool *is_sum;
	int count;
	int64 *cells = cells_of(pending, part, decoder, &is_sum, &count);

	decode_cells(decoder, is_sum, count, cells);
	MemoryContextSwitchTo(caller);
}

void
add_delta(Pending *pending, Delta *delta)
{
	MemoryContext caller = MemoryContextSwitchTo(pending->context);

	for_each_entry(delta, [&](int32, int part, std::string_view key, const int64 *change, size_t,
	                          const bool *) {
		Decoder decoder(key.data(), key.size());
		const bool *is_sum;
		int count;

		(void) decoder.varint();
		(void) decoder.varint();
		int64 *cells = cells_of(pending, part, &decoder, &is_sum, &count);
		for (int i = 0; i < count; ++i)
			cells[i] = is_sum[i] ? add_sums(cells[i], change[i]) : cells[i] + change[i];
	});
	MemoryContextSwitchTo(caller);
}

void
add_log_row(Pending *pending, std::string_view delta, TimestampTz at)
{
	Decoder entries(delta.data(), delta.size());
	bool concerned = false;

	while (!entries.done())
	{
		std::string_view bytes = entries.sized_bytes();
		Decoder entry(bytes.data(), bytes.size());

		if (entry.varint() != (uint64) pending->definition->row.id)
			continue;
		auto part = (int) entry.varint() - 1;
		add_entry(pending, part, &entry);
		concerned = true;
	}
	if (concerned)
	{
		++pending->rows;
		pending->last_change = Max(pending->last_change, at);
	}
}

void
add_log(Pending *pending, Oid log, Snapshot snapshot)
{
	Relation relation = table_open(log, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(relation, nullptr);
	TableScanDesc scan = table_beginscan(relation, snapshot, 0, nullptr);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		add_log_row(pending, pg::view(DatumGetPointer(slot->tts_values[kLogDelta - 1])),
		            DatumGetTimestampTz(slot->tts_values[kLogAt - 1]));
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(relation, AccessShareLock);
}

} /* namespace cache_ext::statistics */
