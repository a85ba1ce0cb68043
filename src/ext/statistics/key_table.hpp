/*-------------------------------------------------------------------------
 *
 * key_table.hpp
 *		Cells by key, where keys meet by the equality of their types.
 *
 * Most types' values are equal exactly when their bytes are, so keys of such
 * columns alone are kept as they are encoded in partial rows: no function of
 * the type is called, and a key that is only added up is never decoded.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/log.hpp"

extern "C" {
#include "executor/executor.h"
#include "utils/hsearch.h"
}

namespace cache_ext::statistics {

struct KeyTable
{
	MemoryContext context;
	const KeyType *types;
	int key_count;
	int cell_count;
	int64 entries;
	int64 *single; /* the only entry when key_count is 0 */

	HTAB *by_bytes; /* of EncodedEntry; or else */
	StringInfoData encoded;
	bool by_value; /* nothing of a key needs memory of its own */

	TupleHashTable by_type;
	TupleTableSlot *probe;
	TupleTableSlot *stored;
};

/* A key as in a partial row: the bitmap of NULLs, then the values. */
struct EncodedKey
{
	const char *bytes;
	uint32 size;
	uint32 hash;
};

struct EncodedEntry
{
	EncodedKey key;
	int64 cells[FLEXIBLE_ARRAY_MEMBER];
};

/* Types and desc outlive the table. */
KeyTable *make_key_table(const KeyType *types, int key_count, TupleDesc desc, int cell_count,
                         MemoryContext context);

/* The cells of a key, created as zeros if asked, else nullptr when absent. */
int64 *key_cells(KeyTable *table, const Datum *values, const bool *nulls, bool create);

/* The cells of the key that comes next in the decoder, created as zeros when absent. */
int64 *encoded_key_cells(KeyTable *table, Decoder *decoder);

/* The values of an encoded key, which live as long as the table. */
void decode_table_key(const KeyTable *table, const EncodedKey &key, Datum *values, bool *nulls);

/* Calls visit(values, nulls, cells) for each key; the key's values live as long as the table. */
template <typename Visit>
void
for_each_key(KeyTable *table, Visit &&visit)
{
	Datum values[INDEX_MAX_KEYS];
	bool nulls[INDEX_MAX_KEYS];

	if (table->key_count == 0)
	{
		if (table->single != nullptr)
			visit(static_cast<const Datum *>(values), static_cast<const bool *>(nulls),
			      table->single);
		return;
	}

	if (table->by_bytes != nullptr)
	{
		HASH_SEQ_STATUS status;

		hash_seq_init(&status, table->by_bytes);
		while (auto *entry = static_cast<EncodedEntry *>(hash_seq_search(&status)))
		{
			decode_table_key(table, entry->key, values, nulls);
			visit(static_cast<const Datum *>(values), static_cast<const bool *>(nulls),
			      entry->cells);
		}
		return;
	}

	TupleHashIterator iterator;
	InitTupleHashIterator(table->by_type, &iterator);
	while (TupleHashEntry entry = ScanTupleHashTable(table->by_type, &iterator))
	{
#if PG_VERSION_NUM >= 180000
		ExecStoreMinimalTuple(TupleHashEntryGetTuple(entry), table->stored, false);
		auto *cells = *static_cast<int64 **>(TupleHashEntryGetAdditional(table->by_type, entry));
#else
		ExecStoreMinimalTuple(entry->firstTuple, table->stored, false);
		auto *cells = static_cast<int64 *>(entry->additional);
#endif
		slot_getallattrs(table->stored);
		visit(table->stored->tts_values, table->stored->tts_isnull, cells);
	}
	TermTupleHashIterator(&iterator);
}

} /* namespace cache_ext::statistics */
