/*-------------------------------------------------------------------------
 *
 * journal.cpp
 *		The journal of the current transaction.
 *
 * Entries carry the nesting level they were made at.  A savepoint that rolls back
 * takes away the entries of its level and deeper ones, which are the last of the
 * journal; one that is released hands them to its parent.  So the levels never
 * fall along the journal, and no stack has to be kept.
 *
 * An entry that repeats an earlier one is not made: the earlier one lives at least
 * as long.  Only a cache_set in between needs it again, since the order of a set
 * and an invalidation of its key decides which of them holds.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/journal_entries.hpp"

extern "C" {
#include "common/hashfn.h"
}

namespace cache_ext::invalidation {

constexpr int kFirstEntries = 16;
constexpr Size kFirstBytes = 1024;

static Journal *journal = nullptr;

/* Number of transactions that have had a journal's end in this process. */
static uint64 transactions = 0;

/* Grows whenever something that was in the journal may no longer be, or must be repeated. */
static uint64 generation = 1;

Journal *
open_journal() noexcept
{
	return journal;
}

Journal *
current_journal()
{
	if (journal == nullptr)
	{
		MemoryContext context = TopTransactionContext;
		auto *fresh = static_cast<Journal *>(MemoryContextAllocZero(context, sizeof(Journal)));

		fresh->bytes = static_cast<char *>(MemoryContextAlloc(context, kFirstBytes));
		fresh->size = kFirstBytes;
		fresh->entries =
		    static_cast<Entry *>(MemoryContextAlloc(context, kFirstEntries * sizeof(Entry)));
		fresh->capacity = kFirstEntries;
		fresh->slots =
		    static_cast<int *>(MemoryContextAllocZero(context, 2 * kFirstEntries * sizeof(int)));
		fresh->slot_mask = 2 * kFirstEntries - 1;
		fresh->last_set = -1;
		journal = fresh;
	}
	return journal;
}

char *
reserve_bytes(Journal *j, Size more)
{
	if (j->size - j->used < more)
	{
		Size size = Max(j->size * 2, j->used + more);

		j->bytes = static_cast<char *>(repalloc_huge(j->bytes, size));
		j->size = size;
	}
	return j->bytes + j->used;
}

static void
enter_slot(Journal *j, int number)
{
	uint32 at = static_cast<uint32>(j->entries[number].hash) & j->slot_mask;

	while (j->slots[at] != 0)
		at = (at + 1) & j->slot_mask;
	j->slots[at] = number + 1;
}

static void
rebuild_slots(Journal *j)
{
	memset(j->slots, 0, (j->slot_mask + 1) * sizeof(int));
	for (int i = 0; i < j->count; ++i)
		enter_slot(j, i);
}

static void
grow_entries(Journal *j)
{
	int capacity = j->capacity * 2;
	auto *slots = static_cast<int *>(MemoryContextAllocExtended(
	    TopTransactionContext, 2 * static_cast<Size>(capacity) * sizeof(int), MCXT_ALLOC_HUGE));

	j->entries = static_cast<Entry *>(
	    repalloc_huge(j->entries, static_cast<Size>(capacity) * sizeof(Entry)));
	j->capacity = capacity;
	pfree(j->slots);
	j->slots = slots;
	j->slot_mask = 2 * static_cast<uint32>(capacity) - 1;
	rebuild_slots(j);
}

std::string_view
item_bytes(const Journal *j, const Entry &entry)
{
	return {j->bytes + entry.offset, entry.length};
}

std::string_view
body_bytes(const Journal *j, const Entry &entry)
{
	return {j->bytes + entry.offset + entry.body, entry.length - entry.body};
}

static uint64
hash_of(std::string_view item) noexcept
{
	return hash_bytes_extended(reinterpret_cast<const unsigned char *>(item.data()),
	                           static_cast<int>(Min(item.size(), static_cast<Size>(INT_MAX))), 0);
}

int
add_entry(Journal *j, ItemKind kind, Size item_length, Size body_offset, bool repeatable)
{
	const char *item = j->bytes + j->used;
	uint64 hash = hash_of({item, item_length});

	if (!repeatable)
	{
		uint32 at = static_cast<uint32>(hash) & j->slot_mask;

		for (; j->slots[at] != 0; at = (at + 1) & j->slot_mask)
		{
			int number = j->slots[at] - 1;
			const Entry &other = j->entries[number];

			if (other.hash == hash && other.length == item_length && number > j->last_set &&
			    memcmp(j->bytes + other.offset, item, item_length) == 0)
				return number;
		}
	}

	if (j->count == j->capacity)
		grow_entries(j);

	Entry *entry = &j->entries[j->count];

	entry->hash = hash;
	entry->offset = j->used;
	entry->length = item_length;
	entry->body = body_offset;
	entry->level = GetCurrentTransactionNestLevel();
	entry->kind = kind;
	j->used += item_length;
	if (kind == ItemKind::kSet)
	{
		j->last_set = j->count;
		++generation;
	}
	enter_slot(j, j->count);
	return j->count++;
}

void
entries_replaced(Journal *j) noexcept
{
	j->last_set = -1;
	for (int i = 0; i < j->count; ++i)
	{
		j->entries[i].hash = hash_of(item_bytes(j, j->entries[i]));
		if (j->entries[i].kind == ItemKind::kSet)
			j->last_set = i;
	}
	rebuild_slots(j);
	++generation;
}

void
forget_journal() noexcept
{
	journal = nullptr;
	++generation;
	++transactions;
}

/* The bytes and slots of the entries stay until then. */
void
end_savepoint(SubXactEvent event)
{
	if (journal == nullptr ||
	    (event != SUBXACT_EVENT_ABORT_SUB && event != SUBXACT_EVENT_COMMIT_SUB))
		return;

	Journal *j = journal;
	int level = GetCurrentTransactionNestLevel();
	int first = j->count;

	while (first > 0 && j->entries[first - 1].level >= level)
		--first;
	if (first == j->count)
		return;

	if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		for (int i = first; i < j->count; ++i)
			j->entries[i].level = level - 1;
		return;
	}

	j->used = j->entries[first].offset;
	j->count = first;
	while (j->last_set >= first ||
	       (j->last_set >= 0 && j->entries[j->last_set].kind != ItemKind::kSet))
		--j->last_set;
	rebuild_slots(j);
	++generation;
}

uint64
journal_generation() noexcept
{
	return generation;
}

uint64
journal_transaction() noexcept
{
	return transactions;
}

int
journal_count() noexcept
{
	return journal == nullptr ? 0 : journal->count;
}

} /* namespace cache_ext::invalidation */
