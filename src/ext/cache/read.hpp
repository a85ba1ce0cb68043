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
	const char *query; /* null: none */
	int64 ttl_ms;      /* 0: the default */
	Names tags;
	bool plain;
};

/*
 * May this transaction use shared values?  Not when it has changed anything
 * that a shared value could miss, and not when it must keep to an old snapshot.
 */
bool may_share();

/* The value, or a null pointer when there is none and no query that could give one. */
text *get(const Ask &ask);

text *make_text(std::string_view value);

} /* namespace cache_ext::cache */
