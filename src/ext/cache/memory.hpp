/*-------------------------------------------------------------------------
 *
 * memory.hpp
 *		The memory tier: entries in PostgreSQL's shared memory.
 *
 * The argument why an entry from here is never stale is in README.md.  A reader
 *
 *	1. asks memory_get(); a hit that is fresh is the answer;
 *	2. takes a MemoryToken for the entry's key and tags, before it reads the
 *	   versions in Redis and before it takes the snapshot of its query;
 *	3. loads the value, and hands it to memory_set() with the token.
 *
 * A token that was overtaken by an invalidation stores nothing, so nobody needs
 * to ask.  Callers decide whether the transaction may share values at all: not
 * one with an xid or with collected items.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/base/digest.hpp"
#include "pg/server.hpp"

extern "C" {
#include "utils/snapshot.h"
#include "utils/timestamp.h"
}

namespace cache_ext::tier {
struct Entry;
class Hottest;
} // namespace cache_ext::tier

namespace cache_ext::cache {

/* Hooks for shared memory; without preloading there is no memory tier. */
void register_memory();

/* Is there one, and may this server use it (not in recovery)? */
bool memory_available();

/* What lies beside the value. */
struct MemoryFacts
{
	TimestampTz loaded_at = 0;  /* before the query's snapshot was taken */
	TimestampTz expires_at = 0; /* not fresh from then on */
	TimestampTz keep_until = 0; /* later than expires_at where stale_for asks for it, else equal */
	Digest audience{0, 0};      /* all zero: everybody; see audience.hpp */
	bool by_settings = false;   /* the audience covers the session's own settings */
	uint32 load_us = 0;         /* how long the query took; 0: none did */
	uint32 loads = 0;           /* by queries of this server's; like hits not set by callers */
	uint32 hits = 0;
};

/* What an entry of the store says. */
MemoryFacts facts_of(const tier::Entry &entry) noexcept;

/* What memory_get() found; the views hold until the next call of it in this process. */
struct MemoryHit
{
	bool found = false; /* valid, not invalidated, and for this audience; perhaps expired */
	bool fresh = false; /* not expired; an expired one may be served only where stale_for allows */
	std::string_view value;
	std::string_view encoded_tags; /* see decode_tags() */
	MemoryFacts facts;
};

/*
 * The entry of this key (without key prefix).  A transaction that keeps to one
 * snapshot (REPEATABLE READ) gives it, and gets nothing that could be newer.
 */
MemoryHit memory_get(std::string_view key, Snapshot keep_to = nullptr);

/* The same, counted as nobody's hit, neither shown nor for eviction. */
MemoryHit memory_peek(std::string_view key);

std::vector<std::string_view> decode_tags(std::string_view encoded);

/* The generations an entry is loaded under, and whether it may be stored at all. */
struct MemoryToken
{
	std::vector<uint32> buckets; /* empty: no memory tier */
	uint64 sum = 0;
	bool busy = false; /* an invalidator is committing: its effects may not be in a snapshot yet */
	TimestampTz taken_at = 0;
};

MemoryToken memory_token(std::string_view key, const std::vector<std::string_view> &tags);
MemoryToken memory_token(std::vector<uint32> &&generations); /* those of its names */

/* Is it for an entry with exactly these tags? */
bool memory_token_covers(const MemoryToken &token, std::string_view key,
                         const std::vector<std::string_view> &tags);

/* Returns whether it was stored.  Not for bare values, which applications change themselves. */
bool memory_set(const MemoryToken &token, std::string_view key,
                const std::vector<std::string_view> &tags, std::string_view value,
                const MemoryFacts &facts);

/*
 * The entry has changed in Redis, outside transactions: what this server has of
 * it is void, and so is what readers are about to store.
 */
void memory_forget(std::string_view key);

/* -------------------------------------------------------------------------
 * For people to look at
 * -------------------------------------------------------------------------
 */

/* Of this database's entries, or of all databases'. */
struct MemoryStatistics
{
	uint64 entries;     /* of this database, void ones not yet reused included */
	uint64 bytes;       /* of this database's keys, tags and values */
	uint64 capacity;    /* bytes of the whole tier */
	uint64 used;        /* of it, by all databases */
	uint64 sets;        /* since the server's start, all databases */
	uint64 evictions;   /* valid entries that made room */
	uint64 expirations; /* void or expired entries that made room */
};
MemoryStatistics memory_statistics();

/* Has the transaction that set a value committed, so that everybody sees it?  Not to be asked with
 * a lock held. */
bool has_committed(uint64 full_xid);

struct MemoryListed
{
	std::string key; /* without key prefix; entries under other prefixes are not listed */
	uint64 bytes;    /* of the value */
	MemoryFacts facts;
	uint64 set_by; /* the transaction that must have committed for it to exist; 0: none */
	bool valid;
};

/* This database's entries under the current key prefix, in no order; a partition at a time. */
std::vector<MemoryListed> memory_list();

/*
 * Offers the names (with key prefix) of all databases' entries that have been hit
 * since eviction last looked at them; returns the sum of all hits.
 */
uint64 offer_hottest(tier::Hottest *hottest, TimestampTz now);

/* When a name was last invalidated on this server, as far as its bucket tells (false sharing). */
struct LastInvalidation
{
	TimestampTz at; /* 0: not since the server's start */
	uint64 xid;     /* full transaction id, 0: unknown */
};
LastInvalidation last_key_invalidation(std::string_view key);
LastInvalidation last_tag_invalidation(std::string_view tag);
LastInvalidation last_prefix_invalidation(std::string_view key); /* by a pattern */
LastInvalidation last_clear();                                   /* of everything */

} /* namespace cache_ext::cache */
