/*-------------------------------------------------------------------------
 *
 * plan.hpp
 *		The items of some outbox rows, sorted by what has to be done about them.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/invalidation/item.hpp"
#include "ext/invalidation/tables.hpp"

namespace cache_ext::invalidation {

using Names = std::vector<std::string_view>;

/* Which encoded items were there already; they stay where they are. */
class SeenNames
{
  public:
	explicit SeenNames(size_t expected);
	bool insert(std::string_view item); /* false: it was there */

  private:
	void grow();

	std::vector<std::string_view> slots_; /* a power of two of them, at most half in use */
	size_t count_ = 0;
};

/* A set of keys that an application keeps for a tag. */
struct TagSet
{
	std::string key;           /* without the key prefix */
	std::string member_prefix; /* what stands before its members in Redis, perhaps */
};

/* What is to be delivered once more. */
struct Repeat
{
	uint64 after_ms;
	std::string items; /* encoded */
	int32 count;
};

struct Value
{
	SetBody body;
	TransactionId xmin;
};

/* The items of some rows, without duplicates, sorted by what has to be done. */
struct Plan
{
	Names keys;
	Names sessions;
	Names tags;
	Names patterns;
	Names tag_patterns;
	std::vector<TagSet> tag_sets;
	std::map<uint64, Repeat> repeats; /* by their delay */
	std::vector<PublishBody> messages;
	std::vector<Value> values;
	bool all = false;
	std::vector<std::string_view> retained; /* encoded items */

	int64 items = 0;
	TransactionId newest = InvalidTransactionId;
	TimestampTz at = 0;

	/*
	 * Buckets, and which transaction touches each; frozen or several: kMany.
	 * After settle() each bucket once and in order.
	 */
	struct Touch
	{
		uint32 bucket;
		TransactionId owner;
	};
	std::vector<Touch> touches;
	static constexpr TransactionId kMany = InvalidTransactionId;

	/* How many items are to be expected. */
	explicit Plan(size_t expected) : seen_(expected) {}

	void add(const OutboxRow &row);
	void touch_also(const Plan &other); /* whosever they are */
	void settle();
	bool touched_by_others(uint32 bucket, TransactionId xmin) const;

  private:
	SeenNames seen_;

	void touch(uint32 bucket, TransactionId xmin);
	void add_repeat(std::string_view body);
	void add_item(ItemKind kind, std::string_view whole, std::string_view body, TransactionId xmin);
};

/* Does the row need a SCAN? */
bool needs_sweep(const OutboxRow &row);

/* cache_clear() was called and the epoch has not been raised for it. */
bool asks_for_epoch(const OutboxRow &row);

} /* namespace cache_ext::invalidation */
