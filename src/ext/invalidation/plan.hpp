/*-------------------------------------------------------------------------
 *
 * plan.hpp
 *		The items of some outbox rows, sorted by what has to be done about them.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "core/invalidation/item.hpp"
#include "ext/invalidation/tables.hpp"

namespace cache_ext::invalidation {

using Names = std::vector<std::string_view>;

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
	Names tags;
	Names patterns;
	Names tag_patterns;
	std::vector<TagSet> tag_sets;
	std::map<uint64, Repeat> repeats; /* by their delay */
	std::vector<PublishBody> messages;
	std::vector<Value> values;
	bool all = false;
	std::set<uint32> buckets;
	std::vector<std::string_view> retained; /* encoded items */

	int64 items = 0;
	TransactionId newest = InvalidTransactionId;
	TimestampTz at = 0;

	/* Which transaction touches a bucket; frozen or several: kMany. */
	std::unordered_map<uint32, TransactionId> owners;
	static constexpr TransactionId kMany = InvalidTransactionId;

	void add(const OutboxRow &row);
	bool touched_by_others(uint32 bucket, TransactionId xmin) const;

  private:
	std::unordered_set<std::string_view> seen_;

	void touch(uint32 bucket, TransactionId xmin);
	void add_repeat(std::string_view body);
	void add_item(ItemKind kind, std::string_view whole, std::string_view body, TransactionId xmin);
};

/* Does the row need a SCAN? */
bool needs_sweep(const OutboxRow &row);

/* cache_clear() was called and the epoch has not been raised for it. */
bool asks_for_epoch(const OutboxRow &row);

} /* namespace cache_ext::invalidation */
