/*-------------------------------------------------------------------------
 *
 * cache.hpp
 *		What the rest of the extension may ask of the cache.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string>
#include <string_view>

#include "core/base/digest.hpp"
#include "pg/server.hpp"

extern "C" {
#include "utils/timestamp.h"
}

namespace cache_ext::cache {

/* The namespace of this database's values in the given epoch, on the timeline of now. */
Digest current_namespace(uint64 epoch);

/* cache_ext.key_prefix before the name: the name in Redis. */
std::string full_key(std::string_view name);

/* 16 bytes for a version key that no one has used before; raises when there is no randomness. */
std::string fresh_nonce();

/* Milliseconds since 1970, as the envelope counts them. */
int64 to_ms(TimestampTz time) noexcept;
int64 now_ms() noexcept;

/*
 * Milliseconds an entry lives: the asked ones, or cache_ext.default_ttl for
 * none (0), shortened by up to a tenth so that entries made together do not
 * expire together.
 */
int64 jittered_ttl_ms(int64 asked_ms);

} /* namespace cache_ext::cache */
