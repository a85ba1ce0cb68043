/*-------------------------------------------------------------------------
 *
 * at_once_memory.hpp
 *		cache_add, cache_expire and cache_incr where no Redis is configured.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string_view>

#include "pg/server.hpp"

namespace cache_ext::cache {

/* As their namesakes in at_once.hpp.  Without a memory tier: 55000 for what would have to be kept.
 */
bool add_in_memory(std::string_view key, std::string_view value, int64 ttl_ms);
bool expire_in_memory(std::string_view key, int64 ttl_ms);
int64 increase_in_memory(std::string_view key, int64 by);

/* The number in the text plus another; 22P02 and 22003 as cache_incr raises them. */
int64 sum_of(std::string_view key, std::string_view value, int64 by);

} /* namespace cache_ext::cache */
