/*-------------------------------------------------------------------------
 *
 * delivery_merge.cpp
 *		A queue that grows with the names that change and not with the changes.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/delivery_steps.hpp"

#include <algorithm>

namespace cache_ext::invalidation {

/* Bounds of what is merged at once while Redis is away, and what is worth it. */
constexpr int kMergeRows = 200 * 1000;
constexpr size_t kMergeBytes = size_t{32} * 1024 * 1024;
constexpr size_t kMergedRowBytes = 6000;

namespace {

/* A row's items without repetitions; values become the removal of their keys. */
class Merger
{
  public:
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
				whole = removal_of(body);
			if (kind == ItemKind::kPublish || seen_.insert(whole).second)
				append(whole);
		}
	}

	/* Rows that say the same; they depend on this object. */
	std::vector<NewRow> rows(TimestampTz at) const
	{
		std::vector<NewRow> rows;

		for (const Chunk &chunk : chunks_)
			rows.push_back(
			    {kBucketOfAll, chunk.items, chunk.payload.data(), chunk.payload.size(), at});
		return rows;
	}

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
		removals_.push_back(std::move(item));
		return removals_.back();
	}

	void append(std::string_view whole)
	{
		if (chunks_.empty() || chunks_.back().payload.size() + whole.size() > kMergedRowBytes)
			chunks_.emplace_back();
		chunks_.back().payload.append(whole);
		++chunks_.back().items;
		++kept_;
	}

	std::unordered_set<std::string_view> seen_;
	std::deque<std::string> removals_;
	std::deque<Chunk> chunks_;
	int64 items_ = 0;
	int64 kept_ = 0;
};

} /* namespace */

/*
 * While Redis is away, items that repeat others are merged into one, so that
 * the queue grows with the names that change and not with the changes.
 */
void
Delivery::maybe_merge()
{
	Taken taken;
	Merger merger;
	std::vector<ItemPointerData> tids;
	TimestampTz oldest = 0;

	taken.row_limit = taken.item_limit = kMergeRows;
	taken.byte_limit = kMergeBytes;
	read_batch(&taken);
	if (taken.count < merge_from_rows_)
		return;
	for (int i = 0; i < taken.count; ++i)
	{
		const OutboxRow &row = taken.rows[i];

		if (asks_for_epoch(row))
			continue;
		merger.add(row);
		tids.push_back(row.tid);
		oldest = oldest == 0 ? row.at : Min(oldest, row.at);
	}
	merge_from_rows_ = Max(kMergeAtLeast, taken.count * 2);
	if (!merger.worthwhile())
		return;

	std::vector<NewRow> rows = merger.rows(oldest);

	state_.collapsed += merger.saved();

	const DeliveryState &state = state_;

	in_transaction([&](MemoryContext) {
		delete_outbox_rows(taken.file, tids.data(), static_cast<int>(tids.size()));
		insert_outbox_rows(rows.data(), static_cast<int>(rows.size()));
		write_delivery(state);
	});
	merge_from_rows_ = Max(kMergeAtLeast, static_cast<int>(rows.size()) * 2);
	dead_rows_ += static_cast<int64>(tids.size());
	looked_at_size_ = false;
}

} /* namespace cache_ext::invalidation */
