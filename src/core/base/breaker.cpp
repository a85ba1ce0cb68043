/*-------------------------------------------------------------------------
 *
 * breaker.cpp
 *		When a server that has failed is asked again; see breaker.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "core/base/breaker.hpp"

namespace cache_ext {

int64_t
Backoff::pause(uint32_t failures, double chance) const noexcept
{
	int64_t pause = first_us;

	for (uint32_t i = 1; i < failures && pause < longest_us; ++i)
		pause *= 2;
	if (pause > longest_us)
		pause = longest_us;
	return pause / 2 + static_cast<int64_t>(static_cast<double>(pause - pause / 2) * chance);
}

bool
Breaker::admit(int64_t now, int64_t probe_us, bool impatient, Ticket *ticket) noexcept
{
	ticket->probe = false;
	ticket->round = round_;
	if (state_ == State::kClosed)
		return true;
	if (now < retry_at_ && !(impatient && state_ == State::kOpen))
		return false;

	/* Each probe has a round of its own: one that comes back after its time is old news. */
	ticket->round = ++round_;
	ticket->probe = true;
	state_ = State::kHalfOpen;
	retry_at_ = now + probe_us;
	return true;
}

bool
Breaker::success(const Ticket &ticket) noexcept
{
	if (ticket.round != round_ || failures_ == 0)
		return false;
	state_ = State::kClosed;
	failures_ = 0;
	return true;
}

bool
Breaker::failure(const Ticket &ticket, int64_t now, const Backoff &backoff, double chance) noexcept
{
	if (ticket.round != round_)
		return false;
	++failures_;
	++round_;
	retry_at_ = now + backoff.pause(failures_, chance);
	state_ = State::kOpen;
	return true;
}

void
Breaker::abandon(const Ticket &ticket, int64_t now) noexcept
{
	if (!ticket.probe || ticket.round != round_ || state_ != State::kHalfOpen)
		return;
	state_ = State::kOpen;
	retry_at_ = now;
}

} /* namespace cache_ext */
