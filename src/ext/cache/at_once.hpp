/*-------------------------------------------------------------------------
 *
 * at_once.hpp
 *		What happens at once, whatever becomes of the transaction: cache_add,
 *		cache_expire and cache_incr.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string_view>

#include "pg/server.hpp"

namespace cache_ext::cache {

/* Stores the value where there is none; false: there was one. */
bool add_at_once(std::string_view key, std::string_view value, int64 ttl_ms);

/* Gives the entry another life; false: there is no entry. */
bool expire_at_once(std::string_view key, int64 ttl_ms);

/* Adds to the number, from 0 where there is none, and returns the sum. */
int64 increase_at_once(std::string_view key, int64 by);

} /* namespace cache_ext::cache */
