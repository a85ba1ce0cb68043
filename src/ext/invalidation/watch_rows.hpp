/*-------------------------------------------------------------------------
 *
 * watch_rows.hpp
 *		The rows of cache_ext_internal.watch.  Plain data, may raise.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "pg/server.hpp"

extern "C" {
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
}

namespace cache_ext::invalidation {

/* Texts as lists of C strings; columns the same, NIL and no filter when there was none. */
struct WatchRow
{
	Oid relation;
	int32 number;
	List *keys;
	List *tags;
	List *patterns;
	List *channels;
	char *message; /* a null pointer: the default one */
	bool filtered;
	List *columns;
};

/* WatchRow pointers in the order of their numbers; InvalidOid: of all relations. */
List *read_watches(Oid relation);

void insert_watch(const WatchRow &row);

/* One watch of the relation, or all of them for 0; returns how many there were. */
int delete_watches(Oid relation, int32 number);

/*
 * Append the items that everything watched widens to: what has to be removed
 * when nobody knows which rows have changed.  Returns how many items.
 */
int append_widened_items(StringInfo items);

} /* namespace cache_ext::invalidation */
