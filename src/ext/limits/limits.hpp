/*-------------------------------------------------------------------------
 *
 * limits.hpp
 *		Rate limits: where they are counted.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <optional>
#include <string_view>

#include "core/policy/rate_limit.hpp"
#include "pg/server.hpp"

namespace cache_ext::limits {

/* Hooks for shared memory. */
void register_limits();

/*
 * Of all servers that share a Redis, with one decision at a time and the clock of Redis.
 * Nothing: it could not be asked, or others were faster for too long.
 */
std::optional<policy::Verdict> decide_in_redis(std::string_view key, const policy::Limit &limit,
                                               int64 cost);

/*
 * Of this server, in its shared memory.  When that is full the limit that would have been
 * over first is forgotten, if it may be; else nothing.
 */
std::optional<policy::Verdict> decide_in_memory(std::string_view key, const policy::Limit &limit,
                                                int64 cost, bool may_forget);

/* Limits that are being counted in memory now, and how many there is room for. */
struct MemoryFigures
{
	int64 used;
	int64 room;
};
MemoryFigures memory_figures();

} /* namespace cache_ext::limits */
