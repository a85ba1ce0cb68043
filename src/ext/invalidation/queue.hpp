/*-------------------------------------------------------------------------
 *
 * queue.hpp
 *		From the journal of a transaction to rows of the outbox.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string_view>

#include "core/invalidation/item.hpp"
#include "ext/invalidation/journal_entries.hpp"

namespace cache_ext::invalidation {

/* Does an item that came after a set take the set's value away again? */
bool removes(ItemKind kind, std::string_view body, const SetBody &set);

/* Insert what the journal holds; may raise. */
void queue_items(const Journal *j);

} /* namespace cache_ext::invalidation */
