/*-------------------------------------------------------------------------
 *
 * pending.hpp
 *		The partial rows of a statistic that a snapshot sees, added up by key.
 *
 * The fold and the reader start from the same sums.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/key_table.hpp"

namespace cache_ext::statistics {

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
