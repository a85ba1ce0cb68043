/*-------------------------------------------------------------------------
 *
 * journal.hpp
 *		What watches use of the journal besides items.hpp: cheap repetition.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string_view>

#include "core/invalidation/item.hpp"
#include "pg/server.hpp"

namespace cache_ext::invalidation {

/* 22023 when Redis should not be asked to match it. */
void check_pattern(std::string_view pattern);

/* Collect a name that has been checked; returns the entry's number. */
int collect_name(ItemKind kind, std::string_view name);

/* The name once more, so long after it was delivered. */
void collect_repeat(uint64 after_ms, ItemKind kind, std::string_view name);

/* A message on a channel; one that is not repeatable is said once a transaction. */
int collect_message(std::string_view channel, std::string_view message, bool repeatable);

/* A watched row changed while no Redis is configured. */
void collect_lapse();

/*
 * While this number stays the same, every entry that was collected is still in
 * the journal and need not be collected again.
 */
uint64 journal_generation() noexcept;

/* Tells transactions of this process apart. */
uint64 journal_transaction() noexcept;

int journal_count() noexcept;

} /* namespace cache_ext::invalidation */
