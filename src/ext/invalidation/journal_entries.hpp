/*-------------------------------------------------------------------------
 *
 * journal_entries.hpp
 *		The journal from within: entries, and where their bytes are.
 *
 * For the files that fill it (items.cpp) and empty it (queue.cpp).  Plain data in
 * TopTransactionContext.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string_view>

#include "ext/invalidation/journal.hpp"

extern "C" {
#include "access/xact.h"
}

namespace cache_ext::invalidation {

struct Entry
{
	uint64 hash;
	Size offset; /* of the encoded item */
	Size length;
	Size body; /* offset of its body within the item */
	int32 level;
	ItemKind kind;
};

/* In TopTransactionContext, like all that it points to. */
struct Journal
{
	char *bytes;
	Size used;
	Size size;
	Entry *entries;
	int count;
	int capacity;
	int *slots; /* open addressing by hash: entry number + 1 */
	uint32 slot_mask;
	int last_set; /* number of the last set, -1: none */
	bool lapse;
	int collapse_from; /* when it has so many entries (journal_collapse) */
};

/* Of this transaction; a null pointer while nothing was collected. */
Journal *open_journal() noexcept;

/* Makes one when there is none. */
Journal *current_journal();

/* Room for so many bytes behind what is used, where an item may be put together. */
char *reserve_bytes(Journal *j, Size more);

std::string_view item_bytes(const Journal *j, const Entry &entry);
std::string_view body_bytes(const Journal *j, const Entry &entry);

/*
 * The item of this kind and body, which the caller has written at
 * reserve_bytes() behind its kind and length.  Adds it to the journal, unless it
 * is there already and saying it twice means no more; returns its number.
 */
int add_entry(Journal *j, ItemKind kind, Size item_length, Size body_offset,
              bool repeatable = false);

/* Other entries stand where some stood, with bytes of their own. */
void entries_replaced(Journal *j) noexcept;

/* The transaction has ended. */
void forget_journal() noexcept;

/* Undoes what the savepoint collected, or gives it to its parent. */
void end_savepoint(SubXactEvent event);

} /* namespace cache_ext::invalidation */
