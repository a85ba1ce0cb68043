/*-------------------------------------------------------------------------
 *
 * watch_rows.hpp
 *		The rows of cache_ext_internal.watch.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "pg/server.hpp"

extern "C" {
#include "lib/stringinfo.h"
}

namespace cache_ext::invalidation {

/*
 * Append the items that everything watched widens to: what has to be removed
 * when nobody knows which rows have changed.  Returns how many items.
 */
int append_widened_items(StringInfo items);

} /* namespace cache_ext::invalidation */
