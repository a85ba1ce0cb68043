/*-------------------------------------------------------------------------
 *
 * plan.cpp
 *		The items of some outbox rows, sorted by what has to be done about them.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/plan.hpp"

#include <algorithm>
#include <functional>

#include "core/base/error.hpp"
#include "core/invalidation/bucket.hpp"
#include "core/invalidation/dialect.hpp"
#include "core/invalidation/glob.hpp"

extern "C" {
#include "access/transam.h"
}

namespace cache_ext::invalidation {

SeenNames::SeenNames(size_t expected)
{
	size_t size = 16;

	while (size < 2 * expected)
		size *= 2;
	slots_.resize(size);
}

bool
SeenNames::insert(std::string_view item)
{
	size_t mask = slots_.size() - 1;
	size_t at = std::hash<std::string_view>()(item) & mask;

	for (; !slots_[at].empty(); at = (at + 1) & mask)
		if (slots_[at] == item)
			return false;
	slots_[at] = item;
	if (2 * ++count_ > slots_.size())
		grow();
	return true;
}

void
SeenNames::grow()
{
	std::vector<std::string_view> old(slots_.size() * 2);

	old.swap(slots_);
	count_ = 0;
	for (std::string_view item : old)
		if (!item.empty())
			insert(item);
}

void
Plan::add(const OutboxRow &row)
{
	std::string_view rest(row.payload, row.length);
	ItemKind kind;
	std::string_view body;

	items += row.items;
	at = Max(at, row.at);
	if (TransactionIdIsNormal(row.xmin) &&
	    (!TransactionIdIsNormal(newest) || TransactionIdFollows(row.xmin, newest)))
		newest = row.xmin;

	while (!rest.empty())
	{
		std::string_view whole = rest;

		if (!take_item(rest, kind, body))
			throw Error(kDataCorrupted, "outbox row cannot be read");
		whole = whole.substr(0, whole.size() - rest.size());
		add_item(kind, whole, body, row.xmin);
	}
}

void
Plan::touch_also(const Plan &other)
{
	for (const Touch &touch : other.touches)
		touches.push_back({touch.bucket, kMany});
}

void
Plan::settle()
{
	size_t kept = 0;

	std::sort(touches.begin(), touches.end(),
	          [](const Touch &a, const Touch &b) { return a.bucket < b.bucket; });
	for (const Touch &touch : touches)
	{
		if (kept == 0 || touches[kept - 1].bucket != touch.bucket)
			touches[kept++] = touch;
		else if (touches[kept - 1].owner != touch.owner)
			touches[kept - 1].owner = kMany;
	}
	touches.resize(kept);
}

bool
Plan::touched_by_others(uint32 bucket, TransactionId xmin) const
{
	auto found =
	    std::lower_bound(touches.begin(), touches.end(), bucket,
	                     [](const Touch &touch, uint32 number) { return touch.bucket < number; });

	return found != touches.end() && found->bucket == bucket && found->owner != xmin;
}

void
Plan::touch(uint32 bucket, TransactionId xmin)
{
	touches.push_back({bucket, TransactionIdIsNormal(xmin) ? xmin : kMany});
}

void
Plan::add_repeat(std::string_view body)
{
	RepeatBody repeat;
	char number[kMaxNumberBytes];

	if (!repeat.read(body))
		throw Error(kDataCorrupted, "outbox row cannot be read");

	Repeat &all = repeats[repeat.after_ms];

	all.after_ms = repeat.after_ms;
	++all.count;
	all.items.push_back(static_cast<char>(repeat.kind));
	all.items.append(number, static_cast<size_t>(put_number(number, repeat.name.size()) - number));
	all.items.append(repeat.name);
}

void
Plan::add_item(ItemKind kind, std::string_view whole, std::string_view body, TransactionId xmin)
{
	bool fresh = kind == ItemKind::kPublish || kind == ItemKind::kSet || seen_.insert(whole);
	PublishBody message;
	Value value = {{}, xmin};

	switch (kind)
	{
	case ItemKind::kKey:
		touch(bucket_of(NameKind::kKey, body), xmin);
		if (fresh)
			keys.push_back(body);
		break;
	case ItemKind::kSession:
		touch(bucket_of(NameKind::kKey, body), xmin);
		if (fresh)
			sessions.push_back(body);
		break;
	case ItemKind::kTag:
		touch(bucket_of(NameKind::kTag, body), xmin);
		if (fresh)
		{
			tags.push_back(body);
			tag_sets.push_back({"tag:" + std::string(body), ""});
		}
		break;
	case ItemKind::kTagSet: {
		size_t end = body.find(kPrefixEnd);

		if (end == std::string_view::npos)
			throw Error(kDataCorrupted, "outbox row cannot be read");
		if (!fresh)
			break;

		std::string prefix(body.substr(0, end));

		tags.push_back(body.substr(end + 1));
		tag_sets.push_back({prefix + "tag:" + std::string(body.substr(end + 1)), prefix});
		break;
	}
	case ItemKind::kTagSetPattern:
		if (fresh)
			tag_patterns.push_back(body);
		break;
	case ItemKind::kRepeat:
		if (fresh)
			add_repeat(body);
		return;
	case ItemKind::kPattern: {
		std::string literal = glob_literal_prefix(body);

		touch(has_prefix(literal) ? bucket_of(NameKind::kPrefix, prefix_of(literal)) : kBucketOfAll,
		      xmin);
		if (fresh)
			patterns.push_back(body);
		break;
	}
	case ItemKind::kTagPattern:
		touch(kBucketOfAll, xmin);
		if (fresh)
			tag_patterns.push_back(body);
		break;
	case ItemKind::kClear:
		touch(kBucketOfAll, xmin);
		all = true;
		return;
	case ItemKind::kPublish:
		if (!message.read(body))
			throw Error(kDataCorrupted, "outbox row cannot be read");
		messages.push_back(message);
		return;
	case ItemKind::kSet:
		if (!value.body.read(body))
			throw Error(kDataCorrupted, "outbox row cannot be read");
		touch(bucket_of(NameKind::kKey, value.body.key), xmin);
		keys.push_back(value.body.key);
		values.push_back(value);
		return;
	case ItemKind::kLapse:
		return;
	}
	if (fresh)
		retained.push_back(whole);
}

bool
needs_sweep(const OutboxRow &row)
{
	std::string_view rest(row.payload, row.length);
	ItemKind kind;
	std::string_view body;

	while (take_item(rest, kind, body))
		if (needs_scan(kind))
			return true;
	return false;
}

bool
asks_for_epoch(const OutboxRow &row)
{
	std::string_view rest(row.payload, row.length);
	ItemKind kind;
	std::string_view body;

	return take_item(rest, kind, body) && kind == ItemKind::kClear && body.empty();
}

} /* namespace cache_ext::invalidation */
