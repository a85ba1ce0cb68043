/*-------------------------------------------------------------------------
 *
 * items.cpp
 *		The journal of the current transaction and its way into the outbox.
 *
 * Entries carry the nesting level they were made at.  A savepoint that rolls
 * back takes away the entries of its level and deeper ones, which are the last
 * of the journal; one that is released hands them to its parent.  So the levels
 * never fall along the journal, and no stack has to be kept.
 *
 * An entry that repeats an earlier one is not made: the earlier one lives at
 * least as long.  Only a cache_set in between needs it again, since the order of
 * a set and an invalidation of its key decides which of them holds.
 *
 * PRE_COMMIT and PRE_PREPARE insert outbox rows, which may fail and then aborts.
 * The callbacks after that forget the journal and settle with the worker table:
 * atomics and a latch, nothing that can fail.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/items.hpp"

#include "core/invalidation/bucket.hpp"
#include "core/invalidation/glob.hpp"
#include "core/invalidation/item.hpp"
#include "ext/invalidation/journal.hpp"
#include "ext/invalidation/tables.hpp"
#include "ext/worker.hpp"
#include "pg/redis_link.hpp"

extern "C" {
#include "common/hashfn.h"
#include "mb/pg_wchar.h"
}

namespace cache_ext::invalidation {

namespace {

/* More buckets than this in one transaction share rows under the bucket of all. */
constexpr int kSeparateRows = 128;
constexpr size_t kSharedRowBytes = 6000;

constexpr int kFirstEntries = 16;
constexpr Size kFirstBytes = 1024;

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
};

Journal *journal = nullptr;

/* Number of transactions that have had a journal's end in this process. */
uint64 transactions = 0;

/* Grows whenever something that was in the journal may no longer be, or must be repeated. */
uint64 generation = 1;

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

void
enter_slot(Journal *j, int number)
{
	uint32 at = static_cast<uint32>(j->entries[number].hash) & j->slot_mask;

	while (j->slots[at] != 0)
		at = (at + 1) & j->slot_mask;
	j->slots[at] = number + 1;
}

void
rebuild_slots(Journal *j)
{
	memset(j->slots, 0, (j->slot_mask + 1) * sizeof(int));
	for (int i = 0; i < j->count; ++i)
		enter_slot(j, i);
}

void
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

/*
 * The item of this kind and body, which the caller has written at
 * reserve_bytes() behind its kind and length.  Adds it to the journal, unless it
 * is there already and saying it twice means no more; returns its number.
 */
int
add_entry(Journal *j, ItemKind kind, Size item_length, Size body_offset, bool repeatable = false)
{
	const char *item = j->bytes + j->used;
	uint64 hash =
	    hash_bytes_extended(reinterpret_cast<const unsigned char *>(item),
	                        static_cast<int>(Min(item_length, static_cast<Size>(INT_MAX))), 0);

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

/* An item whose body is one string. */
int
add_name(ItemKind kind, std::string_view name)
{
	Journal *j = current_journal();
	char *start = reserve_bytes(j, 1 + kMaxNumberBytes + name.size());
	char *at = start;

	*at++ = static_cast<char>(kind);
	at = put_number(at, name.size());
	memcpy(at, name.data(), name.size());

	Size body = static_cast<Size>(at - start);

	return add_entry(j, kind, body + name.size(), body);
}

uint32
pattern_bucket(std::string_view pattern)
{
	/* The literal part matters only as far as its first colon, and escapes must be resolved. */
	char prefix[kMaxNameBytes];
	size_t length = 0;

	for (size_t i = 0; i < pattern.size() && length < sizeof(prefix); ++i)
	{
		char c = pattern[i];

		if (c == '*' || c == '?' || c == '[')
			break;
		if (c == '\\' && i + 1 < pattern.size())
			c = pattern[++i];
		if (c == ':')
			return bucket_of(NameKind::kPrefix, {prefix, length});
		prefix[length++] = c;
	}
	return kBucketOfAll;
}

uint32
item_bucket(ItemKind kind, std::string_view body)
{
	switch (kind)
	{
	case ItemKind::kKey:
		return bucket_of(NameKind::kKey, body);
	case ItemKind::kTag:
		return bucket_of(NameKind::kTag, body);
	case ItemKind::kPattern:
		return pattern_bucket(body);
	case ItemKind::kSet: {
		SetBody set;

		return set.read(body) ? bucket_of(NameKind::kKey, set.key) : kBucketOfAll;
	}
	case ItemKind::kPublish:
		return kNoBucket;
	case ItemKind::kTagPattern:
	case ItemKind::kClear:
	case ItemKind::kLapse:
		break;
	}
	return kBucketOfAll;
}

/* Does an item that came after a set take the set's value away again? */
bool
removes(ItemKind kind, std::string_view body, const SetBody &set)
{
	std::string_view tags = set.tags;
	std::string_view tag;

	switch (kind)
	{
	case ItemKind::kKey:
		return body == set.key;
	case ItemKind::kPattern:
		return glob_match(body, set.key);
	case ItemKind::kTag:
		while (take_bytes(tags, tag))
			if (tag == body)
				return true;
		return false;
	case ItemKind::kTagPattern:
		while (take_bytes(tags, tag))
			if (glob_match(body, tag))
				return true;
		return false;
	case ItemKind::kSet: {
		SetBody other;

		return other.read(body) && other.key == set.key;
	}
	case ItemKind::kClear:
		return true;
	case ItemKind::kPublish:
	case ItemKind::kLapse:
		break;
	}
	return false;
}

/* What goes into the outbox: an entry, or for a set that did not last its key. */
struct Queued
{
	uint32 bucket;
	int number; /* of the entry: messages keep their order */
	std::string_view item;
};

int
compare_queued(const void *a, const void *b)
{
	auto left = static_cast<const Queued *>(a);
	auto right = static_cast<const Queued *>(b);

	if (left->bucket != right->bucket)
		return left->bucket < right->bucket ? -1 : 1;
	return left->number < right->number ? -1 : 1;
}

Queued
queue_entry(const Journal *j, int number)
{
	const Entry &entry = j->entries[number];
	Queued queued = {item_bucket(entry.kind, body_bytes(j, entry)), number, item_bytes(j, entry)};
	SetBody set;

	if (entry.kind != ItemKind::kSet || !set.read(body_bytes(j, entry)))
		return queued;
	for (int i = number + 1; i < j->count; ++i)
	{
		if (!removes(j->entries[i].kind, body_bytes(j, j->entries[i]), set))
			continue;

		auto *item = static_cast<char *>(palloc(1 + kMaxNumberBytes + set.key.size()));
		char *at = item;

		*at++ = static_cast<char>(ItemKind::kKey);
		at = put_number(at, set.key.size());
		memcpy(at, set.key.data(), set.key.size());
		queued.item = {item, static_cast<size_t>(at - item) + set.key.size()};
		break;
	}
	return queued;
}

/* Items of the same bucket together, and large transactions in few rows; a clear has its own. */
void
queue_items(const Journal *j)
{
	MemoryContext scratch =
	    AllocSetContextCreate(CurrentMemoryContext, "cache_ext queue", ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(scratch);
	auto *queued = static_cast<Queued *>(
	    MemoryContextAllocHuge(scratch, static_cast<Size>(j->count) * sizeof(Queued)));

	for (int i = 0; i < j->count; ++i)
		queued[i] = queue_entry(j, i);
	if (j->count > 1)
		qsort(queued, j->count, sizeof(Queued), compare_queued);

	int buckets = 1;

	for (int i = 1; i < j->count; ++i)
		buckets += queued[i].bucket != queued[i - 1].bucket;

	bool shared = buckets > kSeparateRows;
	auto *rows = static_cast<NewRow *>(
	    MemoryContextAllocHuge(scratch, static_cast<Size>(j->count) * sizeof(NewRow)));
	int count = 0;

	for (int i = 0; i < j->count;)
	{
		NewRow *row = &rows[count++];
		uint32 bucket = queued[i].bucket;
		Size length = 0;
		int end = i;

		auto alone = [](const Queued &q) {
			return q.item.front() == static_cast<char>(ItemKind::kClear);
		};

		while (end < j->count &&
		       (end == i || (!alone(queued[i]) && !alone(queued[end]) &&
		                     (shared ? length + queued[end].item.size() <= kSharedRowBytes
		                             : queued[end].bucket == bucket &&
		                                   length + queued[end].item.size() <= MaxAllocSize / 4))))
			length += queued[end++].item.size();

		row->bucket = shared ? kBucketOfAll : bucket;
		row->items = end - i;
		row->length = length;
		row->at = 0;
		row->payload = queued[i].item.data();
		if (end > i + 1)
		{
			auto *payload = static_cast<char *>(palloc(length));

			row->payload = payload;
			for (; i < end; ++i)
			{
				memcpy(payload, queued[i].item.data(), queued[i].item.size());
				payload += queued[i].item.size();
			}
		}
		i = end;
	}
	insert_outbox_rows(rows, count);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);
}

void
before_commit()
{
	if (journal == nullptr || (journal->count == 0 && !journal->lapse))
		return;

	bool configured = pg::redis_configured();

	if (journal->lapse || !configured)
		insert_lapse();
	if (journal->count > 0 && configured)
	{
		queue_items(journal);
		worker::note_committed_changes_soon(worker::Work::kOutbox);
	}
}

void
forget_journal() noexcept
{
	journal = nullptr;
	++generation;
	++transactions;
}

void
on_transaction(XactEvent event, void *)
{
	switch (event)
	{
	case XACT_EVENT_PRE_COMMIT:
	case XACT_EVENT_PRE_PREPARE:
		before_commit();
		break;
	case XACT_EVENT_COMMIT:
	case XACT_EVENT_ABORT:
	case XACT_EVENT_PREPARE:
	case XACT_EVENT_PARALLEL_COMMIT:
	case XACT_EVENT_PARALLEL_ABORT:
		forget_journal();
		break;
	case XACT_EVENT_PARALLEL_PRE_COMMIT:
		break;
	}
}

/* Undoes what the savepoint collected; the bytes and slots of the entries stay until then. */
void
on_savepoint(SubXactEvent event, SubTransactionId, SubTransactionId, void *)
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

} /* namespace */

void
register_item_callbacks()
{
	RegisterXactCallback(on_transaction, nullptr);
	RegisterSubXactCallback(on_savepoint, nullptr);
}

void
check_name(std::string_view name, const char *what)
{
	if (name.empty())
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s must not be empty", what)));
	if (name.size() > kMaxNameBytes)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s is too long", what),
		                errdetail("It has %zu bytes, at most %zu are allowed.", name.size(),
		                          kMaxNameBytes)));
}

void
check_pattern(std::string_view pattern)
{
	check_name(pattern, "pattern");
	if (glob_stars(pattern) > kMaxPatternStars)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("pattern has more than %d asterisks", kMaxPatternStars)));
}

int
collect_name(ItemKind kind, std::string_view name)
{
	return add_name(kind, name);
}

void
collect_key(std::string_view key)
{
	check_name(key, "key");
	add_name(ItemKind::kKey, key);
}

void
collect_tag(std::string_view tag)
{
	check_name(tag, "tag");
	add_name(ItemKind::kTag, tag);
}

void
collect_pattern(std::string_view pattern)
{
	check_pattern(pattern);
	if (!glob_is_literal(pattern))
	{
		add_name(ItemKind::kPattern, pattern);
		return;
	}

	/* Resolve the escapes where the pattern stands: the key it means is no longer. */
	auto *key = static_cast<char *>(palloc(pattern.size()));
	size_t length = 0;

	for (size_t i = 0; i < pattern.size(); ++i)
	{
		if (pattern[i] == '\\' && i + 1 < pattern.size())
			++i;
		key[length++] = pattern[i];
	}
	add_name(ItemKind::kKey, {key, length});
	pfree(key);
}

void
collect_tag_pattern(std::string_view pattern)
{
	check_pattern(pattern);
	add_name(ItemKind::kTagPattern, pattern);
}

int
collect_message(std::string_view channel, std::string_view message, bool repeatable)
{
	Journal *j = current_journal();
	Size body_length = number_bytes(channel.size()) + channel.size() + message.size();
	char *start = reserve_bytes(j, 1 + kMaxNumberBytes + body_length);
	char *at = start;

	*at++ = static_cast<char>(ItemKind::kPublish);
	at = put_number(at, body_length);

	Size body = static_cast<Size>(at - start);

	at = put_number(at, channel.size());
	memcpy(at, channel.data(), channel.size());
	memcpy(at + channel.size(), message.data(), message.size());
	return add_entry(j, ItemKind::kPublish, body + body_length, body, repeatable);
}

void
collect_publish(std::string_view channel, std::string_view message)
{
	check_name(channel, "channel");
	collect_message(channel, message, true);
}

void
collect_clear()
{
	add_name(ItemKind::kClear, {});
}

void
collect_set(const SetItem &item)
{
	check_name(item.key, "key");

	Size body_length = 1 + number_bytes(static_cast<uint64>(item.ttl_ms)) +
	                   number_bytes(item.key.size()) + item.key.size() +
	                   number_bytes(static_cast<uint64>(item.tag_count)) + item.value.size();

	for (int i = 0; i < item.tag_count; ++i)
	{
		check_name(item.tags[i], "tag");
		body_length += number_bytes(item.tags[i].size()) + item.tags[i].size();
	}

	Journal *j = current_journal();
	char *start = reserve_bytes(j, 1 + kMaxNumberBytes + body_length);
	char *at = start;
	auto put_bytes = [&at](std::string_view bytes) {
		at = put_number(at, bytes.size());
		memcpy(at, bytes.data(), bytes.size());
		at += bytes.size();
	};

	*at++ = static_cast<char>(ItemKind::kSet);
	at = put_number(at, body_length);

	Size body = static_cast<Size>(at - start);

	*at++ = item.plain ? kSetPlain : 0;
	at = put_number(at, static_cast<uint64>(item.ttl_ms));
	put_bytes(item.key);
	at = put_number(at, static_cast<uint64>(item.tag_count));
	for (int i = 0; i < item.tag_count; ++i)
		put_bytes(item.tags[i]);
	memcpy(at, item.value.data(), item.value.size());
	add_entry(j, ItemKind::kSet, body + body_length, body, true);
}

void
collect_lapse()
{
	current_journal()->lapse = true;
}

PendingValue
pending_value(std::string_view key)
{
	Journal *j = journal;
	bool removed = false;

	if (j == nullptr)
		return {Pending::kNothing, {}};

	for (int i = j->count - 1; i >= 0; --i)
	{
		const Entry &entry = j->entries[i];
		std::string_view body = body_bytes(j, entry);
		SetBody set;

		switch (entry.kind)
		{
		case ItemKind::kSet:
			if (!set.read(body) || set.key != key)
				break;
			for (int later = i + 1; later < j->count; ++later)
				if (removes(j->entries[later].kind, body_bytes(j, j->entries[later]), set))
					return {Pending::kRemoved, {}};
			return {Pending::kSet, set.value};
		case ItemKind::kKey:
			if (body == key)
				return {Pending::kRemoved, {}};
			break;
		case ItemKind::kPattern:
			removed = removed || glob_match(body, key);
			break;
		case ItemKind::kClear:
			removed = true;
			break;
		case ItemKind::kTag:
		case ItemKind::kTagPattern:
		case ItemKind::kPublish:
		case ItemKind::kLapse:
			break;
		}
	}
	return {removed ? Pending::kRemoved : Pending::kNothing, {}};
}

bool
have_items() noexcept
{
	return journal != nullptr && journal->count > 0;
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
