/*-------------------------------------------------------------------------
 *
 * items.hpp
 *		What the current transaction will invalidate, publish and set.
 *
 * A journal in TopTransactionContext: items are appended in the order of the
 * calls, a rolled-back savepoint takes its own away again, and PRE_COMMIT or
 * PRE_PREPARE turns what is left into outbox rows of the same transaction.
 *
 * Names are given without the key prefix.  Everything here is plain data and
 * may raise; call it with no C++ object alive that has a destructor.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string_view>

#include "pg/server.hpp"

extern "C" {
#include "utils/timestamp.h"
}

namespace cache_ext::invalidation {

void register_item_callbacks();

/* 22023 when the name is empty or too long; what says which kind, as in "key". */
void check_name(std::string_view name, const char *what);

/* 42501 when the name does not begin with cache_ext.allowed_prefix; for names that SQL gives. */
void check_allowed(std::string_view name, const char *what);

/* Raises 22023 for the channel of the events, on which nobody else is to speak. */
void check_channel(std::string_view channel);

void collect_key(std::string_view key);
void collect_tag(std::string_view tag);

/* The key of a session: removed like a key, but in no event, no form and no message. */
void collect_session(std::string_view key);

/* A glob pattern as Redis knows them; one without wildcards is collected as the key it means. */
void collect_pattern(std::string_view pattern);

/* Every tag that the glob pattern matches: what a watch's tag widens to. */
void collect_tag_pattern(std::string_view pattern);

void collect_publish(std::string_view channel, std::string_view message);

/* cache_clear(): every own entry is void, and a new epoch begins. */
void collect_clear();

/* An invalidation of the key and, best effort, its new value after the commit. */
struct SetItem
{
	std::string_view key;
	std::string_view value;
	const std::string_view *tags;
	int tag_count;
	int64 ttl_ms; /* as asked, 0: the default */
	bool plain;   /* bare value without envelope */
};
void collect_set(const SetItem &item);

/* What the own transaction has done to a key so far, in the order of the calls. */
enum class Pending
{
	kNothing, /* not touched */
	kRemoved, /* deleted or invalidated by name, tag, pattern or clear */
	kSet
};
struct PendingValue
{
	Pending state;
	std::string_view value; /* of kSet; valid until the next collect_*() */
	int64 ttl_ms;           /* of kSet, 0: the default */
};
PendingValue pending_value(std::string_view key);

/* Has it removed this very name, as a key or as a session's? */
bool removal_collected(std::string_view key) noexcept;

/* The same for many names, in ascending order. */
void mark_collected_removals(const std::string_view *keys, int count, bool *removed) noexcept;

/* Anything collected and not rolled back?  Such a transaction takes no hits and stores nothing. */
bool have_items() noexcept;

} /* namespace cache_ext::invalidation */
