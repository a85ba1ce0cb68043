/*-------------------------------------------------------------------------
 *
 * watch.hpp
 *		Watches of a relation, compiled, and what capture feeds them.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "pg/server.hpp"

extern "C" {
#include "access/tupdesc.h"
#include "executor/tuptable.h"
}

namespace cache_ext::invalidation {

struct RelationWatches;

/*
 * The watches of the root relation for rows of the given type, which may be a
 * partition's: columns are matched by name.  A null pointer when it has none.
 * Everything is allocated in the context.
 */
RelationWatches *compile_watches(Oid root, TupleDesc desc, MemoryContext context);

/*
 * One changed row: old_row is null for an INSERT, new_row for a DELETE.  Both
 * slots have the type given to compile_watches().  May raise; leaves nothing in
 * CurrentMemoryContext that matters, so callers reset it as they please.
 */
void watch_row(RelationWatches *watches, TupleTableSlot *old_row, TupleTableSlot *new_row);

/* All rows went at once. */
void watch_truncate(RelationWatches *watches);

/*
 * A command has changed all rows of the table, in this column where one is
 * given, or has dropped it.  The name is that by which channels are told.
 */
void watch_altered(Oid root, const char *schema, const char *name, const char *column);

} /* namespace cache_ext::invalidation */
