/*-------------------------------------------------------------------------
 *
 * queue.cpp
 *		From the journal of a transaction to rows of the outbox.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/queue.hpp"

#include "core/invalidation/bucket.hpp"
#include "core/invalidation/glob.hpp"
#include "ext/invalidation/tables.hpp"

namespace cache_ext::invalidation {

/* More buckets than this in one transaction share rows under the bucket of all. */
constexpr int kSeparateRows = 128;
constexpr size_t kSharedRowBytes = 6000;

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

static uint32
item_bucket(ItemKind kind, std::string_view body)
{
	uint32 fine = fine_item_bucket(kind, body);

	return fine == kNoFineBucket ? kNoBucket : fine % kBucketCount;
}

namespace {

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

	if (entry.kind == ItemKind::kSet && set.read(body_bytes(j, entry)) && !lasts(j, number, set))
	{
		auto *item = static_cast<char *>(palloc(1 + kMaxNumberBytes + set.key.size()));
		char *at = item;

		*at++ = static_cast<char>(ItemKind::kKey);
		at = put_number(at, set.key.size());
		memcpy(at, set.key.data(), set.key.size());
		queued.item = {item, static_cast<size_t>(at - item) + set.key.size()};
	}
	return queued;
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

} /* namespace cache_ext::invalidation */
