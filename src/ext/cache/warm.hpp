/*-------------------------------------------------------------------------
 *
 * warm.hpp
 *		Loading entries before somebody asks for them.
 *
 * As the loaders' definers, like every load: whoever warms lends nothing of its own.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ext/cache/loaders.hpp"
#include "pg/server.hpp"

namespace cache_ext::cache {

/* Is there anything to keep entries in, and may this process fill it? */
bool can_warm();

/* The loader's own keys: its one key, or those that its warming query names. */
std::vector<std::string> keys_to_warm(const std::shared_ptr<const Loader> &loader);

/* Load the key anew for everybody. */
void load_key(std::string_view key, const LoaderMatch &match);

/*
 * See that memory has the key: from Redis, or else from its loader if it has one.
 * Returns whether it has been brought there.  Counts as nobody's hit or miss.
 */
bool bring_to_memory(std::string_view key);

} /* namespace cache_ext::cache */
