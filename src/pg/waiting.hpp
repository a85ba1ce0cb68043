/*-------------------------------------------------------------------------
 *
 * waiting.hpp
 *		Waiting for a descriptor, never for longer than a deadline and never
 *		deaf to the process's latch.
 *
 * Everything that waits for Redis waits here: query cancel, statement_timeout,
 * termination and the postmaster's death end a wait at once.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <chrono>

#include "pg/server.hpp"

extern "C" {
#include "storage/latch.h"
}

namespace cache_ext::pg {

/* One point in time that all waits of a call share, or the moment when waiting has become vain. */
class Deadline
{
  public:
	using Clock = std::chrono::steady_clock;
	using InVain = bool (*)(); /* may raise; asked now and then during a wait */

	explicit Deadline(int timeout_ms, InVain in_vain = nullptr)
	    : timeout_ms_(timeout_ms), end_(Clock::now() + std::chrono::milliseconds(timeout_ms)),
	      in_vain_(in_vain)
	{
	}

	long remaining_ms() const
	{
		auto left = std::chrono::duration_cast<std::chrono::microseconds>(end_ - Clock::now());

		return left.count() <= 0 ? 0 : static_cast<long>((left.count() + 999) / 1000);
	}

	/* An equal share of what remains, for the first of so many attempts. */
	Deadline share(size_t attempts) const
	{
		return Deadline(static_cast<int>(remaining_ms() / static_cast<long>(attempts)), in_vain_);
	}

	int timeout_ms() const { return timeout_ms_; }
	bool can_be_vain() const { return in_vain_ != nullptr; }
	bool in_vain() const { return in_vain_ != nullptr && in_vain_(); }

  private:
	int timeout_ms_;
	Clock::time_point end_;
	InVain in_vain_;
};

/* Descriptor, latch and postmaster, registered once, so that a wait is one system call. */
class Waiter
{
  public:
	Waiter() = default;
	~Waiter() { close(); }
	Waiter(const Waiter &) = delete;
	Waiter &operator=(const Waiter &) = delete;

	void open(int fd);
	void close() noexcept;

	/*
	 * Sleep until one of the events (a mask of WL_SOCKET_*) has come; false when
	 * the deadline has passed or the wait is in vain.  A cancel comes as PgError.
	 */
	bool wait(uint32 events, const Deadline &deadline);

  private:
	WaitEventSet *set_ = nullptr;
};

/* Sleep a moment without any descriptor; false when the deadline has passed. */
bool pause_briefly(const Deadline &deadline);

} /* namespace cache_ext::pg */
