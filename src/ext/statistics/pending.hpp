/*-------------------------------------------------------------------------
 *
 * pending.hpp
 *		The partial rows of a statistic that a snapshot sees, added up by key.
 *
 * The fold and the reader start from the same sums; here keys meet by the
 * equality of their types, not by their bytes.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/log.hpp"

extern "C" {
#include "executor/executor.h"
}

namespace cache_ext::statistics {

/* Cells by key. */
struct KeyTable
{
	MemoryContext context;
	int key_count;
	int cell_count;
	TupleDesc desc;
	TupleHashTable table; /* nullptr when key_count is 0 */
	TupleTableSlot *probe;
	TupleTableSlot *stored;
	int64 *single; /* the only entry when key_count is 0 */
	int64 entries;
};

KeyTable *make_key_table(const KeyType *keys, int key_count, TupleDesc desc, int cell_count,
                         MemoryContext context);

/* The cells of a key, created as zeros if asked, else nullptr when absent. */
int64 *key_cells(KeyTable *table, const Datum *values, const bool *nulls, bool create);

/* Calls visit(values, nulls, cells) for each key; the key's values live as long as the table. */
template <typename Visit>
void
for_each_key(KeyTable *table, Visit &&visit)
{
	if (table->key_count == 0)
	{
		if (table->single != nullptr)
			visit(static_cast<const Datum *>(nullptr), static_cast<const bool *>(nullptr),
			      table->single);
		return;
	}

	TupleHashIterator iterator;
	InitTupleHashIterator(table->table, &iterator);
	while (TupleHashEntry entry = ScanTupleHashTable(table->table, &iterator))
	{
#if PG_VERSION_NUM >= 180000
		ExecStoreMinimalTuple(TupleHashEntryGetTuple(entry), table->stored, false);
		auto *cells = *static_cast<int64 **>(TupleHashEntryGetAdditional(table->table, entry));
#else
		ExecStoreMinimalTuple(entry->firstTuple, table->stored, false);
		auto *cells = static_cast<int64 *>(entry->additional);
#endif
		slot_getallattrs(table->stored);
		visit(table->stored->tts_values, table->stored->tts_isnull, cells);
	}
	TermTupleHashIterator(&iterator);
}

struct Pending
{
	Definition *definition;
	MemoryContext context;
	KeyTable *totals; /* cells, then a change for each derived count */
	KeyTable **parts;
	int64 rows;
	double us;               /* what they have cost their writers */
	TimestampTz last_change; /* DT_NOBEGIN when none */
};

Pending *make_pending(Definition *definition, MemoryContext context);

/*
 * Add an entry whose size, statistic and part have been read.  Sums and keys
 * are allocated in the pending's context.
 */
void add_entry(Pending *pending, int part, Decoder *decoder);

/* Add the entries of a delta that is all of this statistic. */
void add_delta(Pending *pending, Delta *delta);

/* Add all entries of a log row that concern this statistic. */
void add_log_row(Pending *pending, std::string_view delta, TimestampTz at);

/* Scan a source's log for one statistic. */
void add_log(Pending *pending, Oid log, Snapshot snapshot);

} /* namespace cache_ext::statistics */
