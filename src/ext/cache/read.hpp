/*-------------------------------------------------------------------------
 *
 * read.hpp
 *		Answering a read: own transaction, tiers, query.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string_view>

#include "ext/cache/arguments.hpp"
#include "pg/server.hpp"

namespace cache_ext::cache {

/* A call of cache_get, as plain data. */
struct Ask
{
	std::string_view key;
	const char *query; /* null: the loader of the key, if there is one */
	int argument_count;
	const char *const *arguments; /* bound to $1, $2, ...; a null pointer is NULL */
	bool as_text_rows;            /* see query.hpp */
	int64 ttl_ms;                 /* 0: the default */
	Names tags;
	bool plain;
};

/*
 * May this transaction use shared values?  Not when it has changed anything
 * that a shared value could miss, and not when it must keep to an old snapshot.
 */
bool may_share();

/* May it take a snapshot of now? */
bool may_take_snapshots();

/* The value, or a null pointer when there is none and no query that could give one. */
text *get(const Ask &ask);

text *make_text(std::string_view value);

} /* namespace cache_ext::cache */
