/*-------------------------------------------------------------------------
 *
 * key_table.cpp
 *		Cells by key; see key_table.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include <algorithm>

#include "ext/statistics/key_table.hpp"

extern "C" {
#include "common/hashfn.h"
#include "utils/datum.h"
}

namespace cache_ext::statistics {

constexpr long kInitialBuckets = 64;

/* Types without a hash function: equal values have equal bytes, or all hash alike. */
static Datum
hash_image(PG_FUNCTION_ARGS)
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

	hash.fn_addr = hash_image;
	hash.fn_nargs = 1;
	hash.fn_strict = true;
	hash.fn_mcxt = context;
	hash.fn_extra = const_cast<KeyType *>(key);
	return hash;
}

static TupleHashTable
build_by_type(const KeyType *keys, int key_count, TupleDesc desc, MemoryContext context)
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

/* ---- keys that are equal when their bytes are ---- */

static uint32
hash_of_encoded(const void *key, Size)
{
	return static_cast<const EncodedKey *>(key)->hash;
}

static int
compare_encoded(const void *left, const void *right, Size)
{
	auto *a = static_cast<const EncodedKey *>(left);
	auto *b = static_cast<const EncodedKey *>(right);

	return a->size == b->size ? memcmp(a->bytes, b->bytes, a->size) : 1;
}

static HTAB *
build_by_bytes(int cell_count, MemoryContext context)
{
	HASHCTL control = {};

	control.keysize = sizeof(EncodedKey);
	control.entrysize = offsetof(EncodedEntry, cells) + sizeof(int64) * (Size) cell_count;
	control.hash = hash_of_encoded;
	control.match = compare_encoded;
	control.hcxt = context;
	return hash_create("cache_ext keys", kInitialBuckets, &control,
	                   HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
}

static int64 *
cells_by_bytes(KeyTable *table, std::string_view bytes, bool create)
{
	EncodedKey key = {
	    bytes.data(), (uint32) bytes.size(),
	    hash_bytes(reinterpret_cast<const unsigned char *>(bytes.data()), (int) bytes.size())};
	bool found;
	auto *entry = static_cast<EncodedEntry *>(hash_search_with_hash_value(
	    table->by_bytes, &key, key.hash, create ? HASH_ENTER : HASH_FIND, &found));

	if (entry == nullptr)
		return nullptr;
	if (!found)
	{
		auto *copy = static_cast<char *>(MemoryContextAlloc(table->context, key.size));

		entry->key.bytes = static_cast<const char *>(memcpy(copy, key.bytes, key.size));
		std::fill_n(entry->cells, table->cell_count, 0);
		++table->entries;
	}
	return entry->cells;
}

static std::string_view
encode_key(KeyTable *table, const Datum *values, const bool *nulls)
{
	StringInfo out = &table->encoded;
	int bitmap;

	out->len = 0;
	begin_key_values(out, table->key_count, &bitmap);
	for (int i = 0; i < table->key_count; ++i)
		add_key_value(out, table->types[i], bitmap, i, values[i], nulls[i]);
	return {out->data, (size_t) out->len};
}

void
decode_table_key(const KeyTable *table, const EncodedKey &key, Datum *values, bool *nulls)
{
	Decoder decoder(key.bytes, key.size);

	if (table->by_value)
	{
		decode_key(&decoder, table->types, table->key_count, values, nulls);
		return;
	}
	MemoryContext caller = MemoryContextSwitchTo(table->context);
	decode_key(&decoder, table->types, table->key_count, values, nulls);
	MemoryContextSwitchTo(caller);
}

/* ---- any key ---- */

KeyTable *
make_key_table(const KeyType *types, int key_count, TupleDesc desc, int cell_count,
               MemoryContext context)
{
	MemoryContext caller = MemoryContextSwitchTo(context);
	auto *table = static_cast<KeyTable *>(palloc0(sizeof(KeyTable)));
	auto all = [&](auto is) { return std::all_of(types, types + key_count, is); };

	table->context = context;
	table->types = types;
	table->key_count = key_count;
	table->cell_count = cell_count;
	if (key_count > 0 && all([](const KeyType &type) { return type.equal_is_identical; }))
	{
		table->by_bytes = build_by_bytes(cell_count, context);
		table->by_value = all([](const KeyType &type) { return type.by_value; });
		initStringInfo(&table->encoded);
	}
	else if (key_count > 0)
	{
		table->by_type = build_by_type(types, key_count, desc, context);
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

static int64 *
cells_by_type(KeyTable *table, const Datum *values, const bool *nulls, bool create)
{
	bool is_new = false;

	ExecClearTuple(table->probe);
	memcpy(table->probe->tts_values, values, sizeof(Datum) * table->key_count);
	memcpy(table->probe->tts_isnull, nulls, sizeof(bool) * table->key_count);
	ExecStoreVirtualTuple(table->probe);

	TupleHashEntry entry =
	    LookupTupleHashEntry(table->by_type, table->probe, create ? &is_new : nullptr, nullptr);
	MemoryContextReset(table->by_type->tempcxt);
	if (entry == nullptr)
		return nullptr;
#if PG_VERSION_NUM >= 180000
	auto **cells = static_cast<int64 **>(TupleHashEntryGetAdditional(table->by_type, entry));
	if (is_new)
		*cells = new_cells(table);
	return *cells;
#else
	if (is_new)
		entry->additional = new_cells(table);
	return static_cast<int64 *>(entry->additional);
#endif
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
	if (table->by_bytes != nullptr)
		return cells_by_bytes(table, encode_key(table, values, nulls), create);
	return cells_by_type(table, values, nulls, create);
}

int64 *
encoded_key_cells(KeyTable *table, Decoder *decoder)
{
	Datum values[INDEX_MAX_KEYS];
	bool nulls[INDEX_MAX_KEYS];

	if (table->by_bytes != nullptr)
		return cells_by_bytes(table, skip_key(decoder, table->types, table->key_count), true);
	decode_key(decoder, table->types, table->key_count, values, nulls);
	return key_cells(table, values, nulls, true);
}

} /* namespace cache_ext::statistics */
