/*-------------------------------------------------------------------------
 *
 * delivery_merge.cpp
 *		A queue that stays bounded while Redis is away, and forgets nothing.
 *
 * First items that repeat others are merged, so that the queue grows with the
 * names that change and not with the changes.  When there are very many names,
 * those that a watch could have made are replaced by what the watches widen to;
 * when many more were given one by one, by the forms that they have in common.
 * What remains are messages, and names without such a form.
 *
 * The queue is looked at in windows of bounded size.  A full one has been said as
 * shortly as it can be, so the next look begins behind it; when the outbox has
 * doubled, at its start again.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/delivery_steps.hpp"

#include <algorithm>
#include <memory>

#include "core/invalidation/widening.hpp"
#include "ext/invalidation/watch_rows.hpp"

extern "C" {
#include "lib/stringinfo.h"
}

namespace cache_ext::invalidation {

/* Bounds of what is merged at once while Redis is away, and what is worth it. */
constexpr int kMergeRows = 200 * 1000;
constexpr size_t kMergeBytes = size_t{32} * 1024 * 1024;
constexpr size_t kMergedRowBytes = 6000;

/* So many names are worth more than a new start of what is watched. */
constexpr int64 kMostNames = 50 * 1000;

/* So many that no watch covers are worth more than others of the same form. */
constexpr int64 kMostGivenNames = 100 * 1000;

constexpr uint32 kMergeAgainPages = 1000;

namespace {

/* A row's items without repetitions; values become the removal of their keys. */
class Merger
{
  public:
	/* Without a widening every name stays what it is. */
	explicit Merger(Widening *widening) : widening_(widening) {}

	void add(const OutboxRow &row)
	{
		std::string_view rest(row.payload, row.length);
		ItemKind kind;
		std::string_view body;

		items_ += row.items;
		while (!rest.empty())
		{
			std::string_view whole = rest;

			if (!take_item(rest, kind, body))
				throw Error(kDataCorrupted, "outbox row cannot be read");
			whole = whole.substr(0, whole.size() - rest.size());
			if (kind == ItemKind::kSet)
			{
				whole = removal_of(body);
				kind = ItemKind::kKey;
				body = removals_.back();
				body.remove_prefix(body.size() - key_length_);
			}
			whole = widened(kind, body, whole);
			if (kind == ItemKind::kPublish || seen_.insert(whole).second)
				append(whole);
		}
	}

	/* Rows that say the same; they depend on this object. */
	std::vector<NewRow> rows(TimestampTz at) const
	{
		std::vector<NewRow> rows;

		for (const Chunk &chunk : chunks_)
			if (chunk.items > 0)
				rows.push_back(
				    {kEveryBucket, 1, chunk.items, chunk.payload.data(), chunk.payload.size(), at});
		return rows;
	}

	/* Whoever keeps a copy of what is queued has to be told that names are missing. */
	void say_all()
	{
		static const char raised[] = {static_cast<char>(ItemKind::kClear), 1, '+'};

		if (widened_any_ && seen_.insert({raised, sizeof(raised)}).second)
		{
			if (!chunks_.empty())
				chunks_.emplace_back();
			append({raised, sizeof(raised)});
			chunks_.emplace_back();
		}
	}

	int64 kept() const { return kept_; }
	int64 saved() const { return items_ - kept_; }
	bool worthwhile() const { return saved() * 2 > items_; }

  private:
	struct Chunk
	{
		std::string payload;
		int32 items = 0;
	};

	std::string_view removal_of(std::string_view body)
	{
		SetBody set;
		char number[kMaxNumberBytes];

		if (!set.read(body))
			throw Error(kDataCorrupted, "outbox row cannot be read");

		std::string item(1, static_cast<char>(ItemKind::kKey));

		item.append(number, static_cast<size_t>(put_number(number, set.key.size()) - number));
		item.append(set.key);
		key_length_ = set.key.size();
		removals_.push_back(std::move(item));
		return removals_.back();
	}

	std::string_view widened(ItemKind kind, std::string_view body, std::string_view whole)
	{
		std::string_view coarse =
		    widening_ != nullptr ? widening_->covering(kind, body) : std::string_view();

		if (coarse.empty())
			return whole;
		widened_any_ = true;
		return coarse;
	}

	void append(std::string_view whole)
	{
		if (chunks_.empty() || chunks_.back().payload.size() + whole.size() > kMergedRowBytes)
			chunks_.emplace_back();
		chunks_.back().payload.append(whole);
		++chunks_.back().items;
		++kept_;
	}

	Widening *widening_;
	bool widened_any_ = false;
	size_t key_length_ = 0; /* of the last removal */
	std::unordered_set<std::string_view> seen_;
	std::deque<std::string> removals_;
	std::deque<Chunk> chunks_;
	int64 items_ = 0;
	int64 kept_ = 0;
};

} /* namespace */

/* All rows but those that are about the epoch. */
static void
merge_rows(Merger *merger, const Taken &taken)
{
	for (int i = 0; i < taken.count; ++i)
		if (!asks_for_epoch(taken.rows[i]))
			merger->add(taken.rows[i]);
}

static void
learn_rows(Widening *widening, const Taken &taken)
{
	for (int i = 0; i < taken.count; ++i)
	{
		std::string_view rest(taken.rows[i].payload, taken.rows[i].length);
		ItemKind kind;
		std::string_view body;
		SetBody set;

		while (take_item(rest, kind, body))
		{
			if (kind != ItemKind::kSet)
				widening->learn(kind, body);
			else if (set.read(body))
				widening->learn(ItemKind::kKey, set.key);
		}
	}
	widening->settle();
}

/* What everything that is watched widens to. */
static std::string
widened_items()
{
	const char *items = nullptr;
	int length = 0;

	in_transaction([&](MemoryContext context) {
		StringInfoData widened;

		MemoryContextSwitchTo(context);
		initStringInfo(&widened);
		(void) append_widened_items(&widened);
		items = widened.data;
		length = widened.len;
	});
	return {items, static_cast<size_t>(length)};
}

/* Looks at the queue when it has doubled since the last time. */
void
Delivery::maybe_merge()
{
	Taken taken;
	uint32 pages = 0;

	in_transaction([&](MemoryContext) { pages = outbox_pages(); });
	if (merge_page_ == 0 || pages < merge_page_ || pages >= merge_again_pages_)
	{
		merge_page_ = 0;
		merge_again_pages_ = Max(kMergeAgainPages, pages * 2);
	}
	taken.from_page = merge_page_;
	taken.row_limit = taken.item_limit = kMergeRows;
	taken.byte_limit = kMergeBytes;
	read_batch(&taken);
	if (!taken.cut_short && taken.count < merge_from_rows_ && taken.items < merge_from_items_)
		return;
	merge_from_rows_ = Max(kMergeAtLeast, taken.count * 2);
	merge_from_items_ = Max(kMostNames, static_cast<int64>(taken.items) * 2);
	if (taken.cut_short)
		merge_page_ =
		    Max(merge_page_ + 1, ItemPointerGetBlockNumber(&taken.rows[taken.count - 1].tid));
	merge_window(taken);
}

void
Delivery::merge_window(const Taken &taken)
{
	Merger merger(nullptr);

	merge_rows(&merger, taken);
	if (merger.kept() <= kMostNames)
	{
		if (merger.worthwhile())
			replace_rows(taken, merger.rows(taken.oldest()), merger.saved());
		return;
	}

	std::string items = widened_items();
	Widening widening(items);
	auto collapse = std::make_unique<Merger>(&widening);

	merge_rows(collapse.get(), taken);
	if (collapse->kept() > kMostGivenNames)
	{
		collapse = std::make_unique<Merger>(&widening);
		learn_rows(&widening, taken);
		merge_rows(collapse.get(), taken);
	}
	collapse->say_all();
	if (collapse->worthwhile())
		replace_rows(taken, collapse->rows(taken.oldest()), collapse->saved());
}

/* In one transaction: the rows that were read go, those that say the same come. */
void
Delivery::replace_rows(const Taken &taken, const std::vector<NewRow> &rows, int64 saved)
{
	state_.collapsed += saved;

	const DeliveryState &state = state_;

	std::vector<ItemPointerData> tids;

	for (int i = 0; i < taken.count; ++i)
		if (!asks_for_epoch(taken.rows[i]))
			tids.push_back(taken.rows[i].tid);
	in_transaction([&](MemoryContext) {
		delete_outbox_rows(taken.file, tids.data(), static_cast<int>(tids.size()));
		insert_outbox_rows(rows.data(), static_cast<int>(rows.size()));
		write_delivery(state);
	});

	int64 items = 0;

	for (const NewRow &row : rows)
		items += row.items;
	merge_from_rows_ = Max(kMergeAtLeast, static_cast<int>(rows.size()) * 2);
	merge_from_items_ = Max(kMostNames, items * 2);
	dead_rows_ += taken.count;
}

} /* namespace cache_ext::invalidation */
