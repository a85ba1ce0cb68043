/*-------------------------------------------------------------------------
 *
 * fence.hpp
 *		How a committing transaction voids entries of the memory tier.
 *
 * Before its commit it takes heavyweight locks on the buckets of what it
 * invalidates and raises their generations, in this order.  PostgreSQL releases
 * the locks after the transaction has become visible, or has failed, also when
 * another session commits a prepared one, also after a restart in between.
 * Readers only look whether such a lock is held.  README.md in ext/cache has the
 * argument.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string_view>

#include "core/invalidation/bucket.hpp"
#include "core/invalidation/item.hpp"
#include "core/tier/generations.hpp"
#include "ext/invalidation/journal_entries.hpp"
#include "pg/server.hpp"

namespace cache_ext::invalidation {

/* Hooks for shared memory; without preloading there is no fence. */
void register_fence();

bool fence_available() noexcept;

/* PRE_COMMIT and PRE_PREPARE, after the outbox rows; may raise. */
void raise_fence(const Journal *journal);

/*
 * Called for each value that a committing transaction sets, once its fence is
 * up.  The value may be kept; it must not be given before the transaction is visible.
 */
using SetCommitting = void (*)(const SetBody &set);
void on_set_committing(SetCommitting hook) noexcept;

/* Only where a fence is available: the counters, and which of them stands for a name. */
tier::Generations &generations() noexcept;
uint32 generation_of(NameKind kind, std::string_view name) noexcept;
uint32 generation_of_fine_bucket(uint32 bucket) noexcept;
uint32 generation_of_all() noexcept;

/* Void what was loaded before now, in no transaction. */
void raise_at_once(uint32 generation) noexcept;

/* Is another transaction about to commit invalidations of these generations?  May raise. */
bool fence_is_up(const uint32 *generations, int count);

/*
 * Invalidations of transactions up to this one may be unknown to the counters,
 * which began empty at the start of the server.
 */
uint64 last_unknown_xid() noexcept;

} /* namespace cache_ext::invalidation */
