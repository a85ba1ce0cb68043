/*-------------------------------------------------------------------------
 *
 * retention.cpp
 *		For how long Redis could still forget what it has confirmed.
 *
 *-------------------------------------------------------------------------
 */
#include "core/invalidation/retention.hpp"

#include <algorithm>

namespace cache_ext::invalidation {

constexpr int64_t kSecond = 1000 * 1000;
constexpr int64_t kAtLeast = 60 * kSecond;
constexpr int64_t kLossWindow = 3600 * kSecond;

/* A name that was retained so recently needs no second row, so that much more is kept. */
constexpr int64_t kDistance = 10 * kSecond;

/* Less is drift. */
constexpr int64_t kLeastJump = kSecond;

void
Retention::watch_clock(const Moment &now)
{
	if (last_.steady != 0)
	{
		int64_t jump = (now.day - last_.day) - (now.steady - last_.steady);

		if (jump >= kLeastJump)
			jumps_.push_back({now.steady, jump});
	}
	last_ = now;
	while (!jumps_.empty() && now.steady - jumps_.front().steady > kLossWindow)
		jumps_.pop_front();
}

void
Retention::watch_replicas(const ServerInfo &info, int64_t steady)
{
	if (info.replicas >= replicas_ || steady - replicas_at_ > kLossWindow)
	{
		replicas_ = info.replicas;
		replicas_at_ = steady;
	}

	/* All have what the master had at an earlier look once they have passed its offset of then. */
	bool complete = info.replicas >= replicas_;

	if (offset_at_ != 0 && complete && info.slowest_replica_offset >= offset_)
	{
		replicated_ = true;
		replicated_at_ = offset_at_;
		offset_at_ = 0;
	}
	if (offset_at_ == 0)
	{
		offset_at_ = steady;
		offset_ = info.master_offset;
	}
}

void
Retention::looked(const ServerInfo &info, const Moment &at)
{
	watch_clock(at);
	watch_replicas(info, at.steady);
	info_ = info;
	looked_at_ = at.steady;
	known_ = true;
}

void
Retention::forget_server()
{
	known_ = replicated_ = false;
	replicas_ = 0;
	offset_at_ = 0;
}

int64_t
Retention::safe_before(const Moment &now)
{
	int64_t age = kLossWindow;

	watch_clock(now);
	if (info_.appends)
		age = 0;
	else if (info_.save_age_us >= 0)
		age = info_.save_age_us + (now.steady - looked_at_);
	if (replicas_ > 0)
		age = std::max(age, replicated_ ? now.steady - replicated_at_ : kLossWindow);
	age = std::min(std::max(age + kDistance, kAtLeast), kLossWindow);
	for (const Jump &jump : jumps_)
		age += jump.length;
	return now.day - age;
}

} /* namespace cache_ext::invalidation */
