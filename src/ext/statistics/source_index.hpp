/*-------------------------------------------------------------------------
 *
 * source_index.hpp
 *		Extremes read from an index that the source has anyway.
 *
 * Where a btree on (groups..., value) exists, the outermost value of a group
 * is one descent away, in any snapshot; keeping the values a second time would
 * cost every writing statement a lookup and an index entry in the fold.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/definition.hpp"

extern "C" {
#include "access/htup.h"
#include "utils/snapshot.h"
}

namespace cache_ext::statistics {

struct SourceIndex;

/* Does the part serve min and max of a column over all rows of its groups, and nothing else? */
bool only_extremes(const Definition *definition, const Part &part);

/*
 * The btree of the source that orders this part's values within their groups;
 * InvalidOid when there is none that any snapshot of this transaction can use.
 */
Oid find_source_index(const Definition *definition, const Part &part);

/* May every snapshot that this transaction can hold use the index, a row of pg_index? */
bool serves_all_snapshots(HeapTuple index);

SourceIndex *open_source_index(const Definition *definition, const Part &part, Oid index,
                               Snapshot snapshot);
void close_source_index(SourceIndex *index);

/* The smallest or largest value of a group, allocated in the current context; false without one. */
bool outermost_in_source(SourceIndex *index, AggregateKind kind, const Datum *group,
                         const bool *nulls, Datum *value);

} /* namespace cache_ext::statistics */
