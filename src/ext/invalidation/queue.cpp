/*-------------------------------------------------------------------------
 *
 * queue.cpp
 *		From the journal of a transaction to rows of the outbox.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/queue.hpp"

#include <algorithm>
#include <unordered_set>
#include <vector>

#include "core/invalidation/bucket.hpp"
#include "core/invalidation/glob.hpp"
#include "ext/invalidation/tables.hpp"
#include "pg/guard.hpp"

extern "C" {
#include "lib/stringinfo.h"
}

namespace cache_ext::invalidation {

/* A row is full beyond this: a batch is cut at rows, and readers compare few numbers. */
constexpr Size kRowBytes = 6000;
constexpr int kRowBuckets = 128;

constexpr int kRowsAtOnce = 64;

static uint32
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
			return fine_bucket_of(NameKind::kPrefix, {prefix, length});
		prefix[length++] = c;
	}
	return kFineBucketOfAll;
}

uint32
fine_item_bucket(ItemKind kind, std::string_view body)
{
	switch (kind)
	{
	case ItemKind::kKey:
	case ItemKind::kSession:
		return fine_bucket_of(NameKind::kKey, body);
	case ItemKind::kTag:
		return fine_bucket_of(NameKind::kTag, body);
	case ItemKind::kPattern:
		return pattern_bucket(body);
	case ItemKind::kSet: {
		SetBody set;

		return set.read(body) ? fine_bucket_of(NameKind::kKey, set.key) : kFineBucketOfAll;
	}
	case ItemKind::kTagSet: /* names keys of others, whose entries are not ours */
	case ItemKind::kTagSetPattern:
	case ItemKind::kRepeat: /* what it names has been voided by then */
	case ItemKind::kPublish:
		return kNoFineBucket;
	case ItemKind::kTagPattern:
	case ItemKind::kClear:
	case ItemKind::kLapse:
		break;
	}
	return kFineBucketOfAll;
}

namespace {

/* A row that is being put together. */
struct OpenRow
{
	StringInfoData payload;
	uint16 *buckets;
	int bucket_count;
	int32 items;
};

/* Rows on their way; plain data in a context that goes with it. */
struct Queue
{
	NewRow rows[kRowsAtOnce];
	int count;

	/*
	 * What a sweep over the keys of Redis is needed for keeps its row until that is
	 * done, so other items are not in it.
	 */
	OpenRow at_once;
	OpenRow swept;
};

void
insert_rows(Queue *queue)
{
	if (queue->count > 0)
		insert_outbox_rows(queue->rows, queue->count);
	while (queue->count > 0)
	{
		const NewRow &row = queue->rows[--queue->count];

		pfree(const_cast<char *>(row.payload));
		pfree(const_cast<uint16 *>(row.buckets));
	}
}

void
close_row(Queue *queue, OpenRow *row)
{
	if (row->items == 0)
		return;
	queue->rows[queue->count++] = {row->buckets,
	                               row->bucket_count,
	                               row->items,
	                               row->payload.data,
	                               static_cast<size_t>(row->payload.len),
	                               0};
	*row = {};
	if (queue->count == kRowsAtOnce)
		insert_rows(queue);
}

void
add_item(Queue *queue, ItemKind kind, uint32 fine_bucket, std::string_view item)
{
	OpenRow *row = needs_scan(kind) ? &queue->swept : &queue->at_once;
	auto bucket = static_cast<uint16>(fine_bucket % kBucketCount);
	Size used = row->items == 0 ? 0 : static_cast<Size>(row->payload.len);

	/* An epoch is asked for in a row of its own. */
	if (kind == ItemKind::kClear || row->bucket_count == kRowBuckets ||
	    used + item.size() > kRowBytes)
		close_row(queue, row);
	if (row->items == 0)
	{
		initStringInfo(&row->payload);
		row->buckets = static_cast<uint16 *>(palloc(kRowBuckets * sizeof(uint16)));
	}
	appendBinaryStringInfo(&row->payload, item.data(), static_cast<int>(item.size()));
	++row->items;

	uint16 *end = row->buckets + row->bucket_count;

	if (fine_bucket != kNoFineBucket && std::find(row->buckets, end, bucket) == end)
		row->buckets[row->bucket_count++] = bucket;
	if (kind == ItemKind::kClear)
		close_row(queue, row);
}

/* For a set that did not last: the removal of its key. */
std::string_view
removal_of(const SetBody &set)
{
	auto *item = static_cast<char *>(palloc(1 + kMaxNumberBytes + set.key.size()));
	char *at = item;

	*at++ = static_cast<char>(ItemKind::kKey);
	at = put_number(at, set.key.size());
	memcpy(at, set.key.data(), set.key.size());
	return {item, static_cast<size_t>(at - item) + set.key.size()};
}

/*
 * For each entry: is it a set that lasts?  From the end to the beginning, with what
 * comes later at hand, so that thousands of sets are not compared with one another.
 */
std::vector<bool>
find_lasting(const Journal *j)
{
	std::vector<bool> lasting(static_cast<size_t>(j->count));
	std::unordered_set<std::string_view> keys; /* removed or set later */
	std::unordered_set<std::string_view> tags;
	std::vector<int> others;

	for (int i = j->count - 1; i >= 0; --i)
	{
		const Entry &entry = j->entries[i];
		std::string_view body = body_bytes(j, entry);
		SetBody set;

		if (entry.kind == ItemKind::kKey || entry.kind == ItemKind::kSession)
			keys.insert(body);
		else if (entry.kind == ItemKind::kTag)
			tags.insert(body);
		else if (entry.kind != ItemKind::kSet)
		{
			if (needs_scan(entry.kind) || entry.kind == ItemKind::kClear)
				others.push_back(i);
		}
		else if (set.read(body))
		{
			std::string_view its_tags = set.tags;
			std::string_view tag;
			bool removed = !keys.insert(set.key).second;

			while (!removed && take_bytes(its_tags, tag))
				removed = tags.count(tag) != 0;
			for (size_t n = 0; n < others.size() && !removed; ++n)
				removed =
				    removes(j->entries[others[n]].kind, body_bytes(j, j->entries[others[n]]), set);
			lasting[static_cast<size_t>(i)] = !removed;
		}
	}
	return lasting;
}

/* The same in memory of the server; a null pointer where there are no sets. */
const bool *
lasting_sets(const Journal *j)
{
	if (j->last_set < 0)
		return nullptr;

	auto *flags = static_cast<bool *>(
	    MemoryContextAllocHuge(CurrentMemoryContext, static_cast<Size>(j->count)));

	pg::guard([&] {
		std::vector<bool> lasting = find_lasting(j);

		std::copy(lasting.begin(), lasting.end(), flags);
	});
	return flags;
}

} /* namespace */

bool
lasts(const Journal *j, int number, const SetBody &set)
{
	for (int i = number + 1; i < j->count; ++i)
		if (removes(j->entries[i].kind, body_bytes(j, j->entries[i]), set))
			return false;
	return true;
}

bool
removes(ItemKind kind, std::string_view body, const SetBody &set)
{
	std::string_view tags = set.tags;
	std::string_view tag;

	switch (kind)
	{
	case ItemKind::kKey:
	case ItemKind::kSession:
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
	case ItemKind::kTagSet:
	case ItemKind::kTagSetPattern:
	case ItemKind::kRepeat:
	case ItemKind::kPublish:
	case ItemKind::kLapse:
		break;
	}
	return false;
}

void
queue_items(const Journal *j)
{
	/* Kept, since making one costs more than most queues; emptied first in case of an error. */
	static MemoryContext scratch = nullptr;

	if (scratch == nullptr)
		scratch =
		    AllocSetContextCreate(TopMemoryContext, "cache_ext queue", ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(scratch);

	MemoryContext caller = MemoryContextSwitchTo(scratch);
	auto *queue = static_cast<Queue *>(palloc(sizeof(Queue)));
	const bool *lasting = lasting_sets(j);

	queue->count = 0;
	queue->at_once = queue->swept = {};
	for (int i = 0; i < j->count; ++i)
	{
		const Entry &entry = j->entries[i];
		std::string_view body = body_bytes(j, entry);
		SetBody set;

		add_item(queue, entry.kind, fine_item_bucket(entry.kind, body),
		         entry.kind == ItemKind::kSet && !lasting[i] && set.read(body)
		             ? removal_of(set)
		             : item_bytes(j, entry));
	}
	close_row(queue, &queue->at_once);
	close_row(queue, &queue->swept);
	insert_rows(queue);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(scratch);
}

} /* namespace cache_ext::invalidation */
