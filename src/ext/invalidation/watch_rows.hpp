/*-------------------------------------------------------------------------
 *
 * watch_rows.hpp
 *		The rows of cache_ext_internal.watch.  Plain data, may raise.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "core/invalidation/item.hpp"
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
	char *target;     /* a null pointer: names are as they stand in Redis */
	uint64 repeat_ms; /* 0: no repetition */

	/* What tags are collected as; set by read_watches(). */
	ItemKind tag_kind;
	ItemKind tag_pattern_kind;
};

/* The fixed texts of a target (core/invalidation/dialect.hpp). */
struct TargetRow
{
	char *prefix;
	bool tags;
};

/* Raises when there is none of that name. */
TargetRow read_target(const char *name);

/* Until the end of the transaction no target is dropped. */
void keep_targets();

/*
 * WatchRow pointers in the order of their numbers; InvalidOid: of all relations.
 * Keys, patterns and tags of a watch on a target come as that target means them.
 */
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
