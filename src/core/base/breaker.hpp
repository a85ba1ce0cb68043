/*-------------------------------------------------------------------------
 *
 * breaker.hpp
 *		When a server that has failed is asked again, and by whom.
 *
 * closed: everybody asks.  The first failure opens it: nobody asks until a
 * pause is over.  Then it is half-open: one asks, the probe, and the others
 * wait for what it finds.  A success closes it; a failure opens it for a longer
 * pause.  A probe that never reports (its process was killed) is forgotten
 * after its time.
 *
 * Plain data and arithmetic: the caller brings clock, chance and lock, so it
 * may live in shared memory.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <cstdint>

namespace cache_ext {

/* Pauses that double from one failure to the next, each shortened by chance. */
struct Backoff
{
	int64_t first_us;
	int64_t longest_us;

	/*
	 * The pause after the n-th failure in a row, from 1.  chance is in [0, 1): half of
	 * the pause is fixed, the rest falls evenly, so that those who failed
	 * together do not come back together.
	 */
	int64_t pause(uint32_t failures, double chance) const noexcept;
};

class Breaker
{
  public:
	enum class State : uint32_t
	{
		kClosed,
		kOpen,
		kHalfOpen
	};

	/* What somebody who may ask carries from the question to the report. */
	struct Ticket
	{
		uint32_t round = 0; /* openings so far: a report from before the last one is old news */
		bool probe = false;
	};

	State state() const noexcept { return state_; }
	uint32_t round() const noexcept { return round_; }
	uint32_t failures() const noexcept { return failures_; } /* in a row; 0: all is well */

	/* When the next one may ask; 0 while closed. */
	int64_t retry_at() const noexcept { return state_ == State::kClosed ? 0 : retry_at_; }

	/*
	 * May the caller ask now?  As a probe it has at most probe_us to report.
	 * impatient: the pause is not waited for, a probe on its way is.
	 */
	bool admit(int64_t now, int64_t probe_us, bool impatient, Ticket *ticket) noexcept;

	/* Reports.  True when the state changes. */
	bool success(const Ticket &ticket) noexcept;
	bool failure(const Ticket &ticket, int64_t now, const Backoff &backoff, double chance) noexcept;

	/* The probe has learned nothing: the next one may ask. */
	void abandon(const Ticket &ticket, int64_t now) noexcept;

  private:
	State state_ = State::kClosed;
	uint32_t failures_ = 0;
	uint32_t round_ = 0;
	int64_t retry_at_ = 0; /* open: end of the pause; half-open: end of the probe's time */
};

} /* namespace cache_ext */
