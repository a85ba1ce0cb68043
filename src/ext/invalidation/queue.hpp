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

/* Is the set, which is the entry of this number, the last word on its key? */
bool lasts(const Journal *j, int number, const SetBody &set);

/* The fine bucket (bucket.hpp) that an item touches; a message touches none. */
constexpr uint32 kNoFineBucket = PG_UINT32_MAX;
uint32 fine_item_bucket(ItemKind kind, std::string_view body);

/* Insert what the journal holds; may raise. */
void queue_items(const Journal *j);

} /* namespace cache_ext::invalidation */
