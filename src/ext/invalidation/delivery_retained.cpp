/*-------------------------------------------------------------------------
 *
 * delivery_retained.cpp
 *		What Redis has confirmed, and for how long it could still forget it.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/delivery_steps.hpp"

#include <algorithm>
#include <chrono>

#include "pg/worker_table.hpp"

extern "C" {
#include "common/hashfn.h"
}

namespace cache_ext::invalidation {

/* A name that was retained so recently needs no second row: purges keep this distance
 * (core/invalidation/retention). */
constexpr int64 kRetainedWindowMs = 10 * 1000;
constexpr size_t kRetainedPlaces = 64 * 1024; /* a power of two */
constexpr int64 kPurgeEveryMs = 10 * 1000;

uint64
RecentNames::fingerprint(std::string_view name) const
{
	return hash_bytes_extended(reinterpret_cast<const unsigned char *>(name.data()),
	                           static_cast<int>(name.size()), key_);
}

bool
RecentNames::has(std::string_view name, TimestampTz since) const
{
	if (places_.empty())
		return false;

	uint64 mine = fingerprint(name);
	const Place &place = places_[mine & (kRetainedPlaces - 1)];

	return place.fingerprint == mine && place.at > since;
}

void
RecentNames::note(std::string_view name, TimestampTz at)
{
	if (places_.empty())
	{
		if (!pg_strong_random(&key_, sizeof(key_)))
			return;
		places_.resize(kRetainedPlaces, {0, DT_NOBEGIN});
	}

	uint64 mine = fingerprint(name);

	places_[mine & (kRetainedPlaces - 1)] = {mine, at};
}

/* Redis has confirmed: the rows go, their items stay for as long as Redis could forget them. */
void
Delivery::acknowledge(const Plan &plan, Oid file, const std::vector<ItemPointerData> &tids,
                      const Digest &incarnation)
{
	TimestampTz now = GetCurrentTimestamp();
	std::string retained;
	std::vector<std::string_view> fresh;

	for (std::string_view item : plan.retained)
	{
		if (retained_names_.has(item, now - kRetainedWindowMs * 1000))
			continue;
		retained.append(item);
		fresh.push_back(item);
	}
	for (const Value &value : plan.values)
	{
		char number[kMaxNumberBytes];

		retained.push_back(static_cast<char>(ItemKind::kKey));
		retained.append(number,
		                static_cast<size_t>(put_number(number, value.body.key.size()) - number));
		retained.append(value.body.key);
	}

	state_.delivered += plan.items;
	state_.retried += unwritten_retries_;
	state_.last_delivery = now;
	state_.clean = false;

	const DeliveryState &state = state_;
	int32 count = static_cast<int32>(fresh.size() + plan.values.size());

	in_transaction([&](MemoryContext) {
		delete_outbox_rows(file, tids.data(), static_cast<int>(tids.size()));
		if (!retained.empty())
			insert_retained(incarnation, count, retained.data(), retained.size());
		for (const auto &[after_ms, repeat] : plan.repeats)
			insert_repeat(now + static_cast<int64>(after_ms) * 1000, repeat.count,
			              repeat.items.data(), repeat.items.size());
		write_delivery(state);
	});

	for (const auto &[after_ms, repeat] : plan.repeats)
	{
		TimestampTz due = now + static_cast<int64>(after_ms) * 1000;

		next_repeat_ = next_repeat_ == 0 ? due : Min(next_repeat_, due);
	}
	unwritten_retries_ = 0;
	dirty_ = true;
	watching_ = true;
	dead_rows_ += static_cast<int64>(tids.size());
	for (std::string_view item : fresh)
		retained_names_.note(item, now);
}

void
Delivery::repeat_what_is_due()
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz next = 0;

	if (next_repeat_ == 0 || now < next_repeat_)
		return;
	in_transaction([&](MemoryContext) { next = queue_due_repeats(now); });
	next_repeat_ = next;
}

/*
 * Redis has answered for all that the batch saw, but for the patterns and sets of
 * a sweep that is under way.
 */
void
Delivery::confirm(const Taken &taken)
{
	pg::WorkerSlot *slot = pg::my_worker_slot();

	if (slot == nullptr || taken.cut_short || taken.left_some || sweep_.holds_sets)
		return;
	pg::confirm_numbers(slot, {taken.last_number, sweep_.active() ? 0 : taken.last_number});
}

Moment
this_moment()
{
	auto steady = std::chrono::steady_clock::now().time_since_epoch();

	return {GetCurrentTimestamp(),
	        std::chrono::duration_cast<std::chrono::microseconds>(steady).count()};
}

/* Retained items that Redis cannot forget any more go. */
void
Delivery::maybe_purge()
{
	Moment now = this_moment();

	if (!watching_ || now.steady < next_purge_ || !retention_.knows_server())
		return;
	next_purge_ = now.steady + kPurgeEveryMs * 1000;

	TimestampTz safe = retention_.safe_before(now);
	bool left = false;
	int64 purged = 0;

	in_transaction([&](MemoryContext) {
		purged = purge_retained(safe);
		left = any_retained();
	});
	watching_ = left;
	dead_retained_ += purged;
}

} /* namespace cache_ext::invalidation */
