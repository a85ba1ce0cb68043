/*-------------------------------------------------------------------------
 *
 * retention.hpp
 *		For how long Redis could still forget what it has confirmed.
 *
 * A removal is safe when a save that began after it is complete, or writes are
 * appended to a file, and when every replica has it; in no case before a minute
 * has passed, and after an hour if Redis tells neither.  A replica that has been
 * there within that hour counts although it is cut off: it may be promoted.
 *
 * Ages are measured with a clock that never jumps.  Items carry the time of day,
 * which does: a jump ahead makes them look older than they are, so it is taken off
 * until they are old enough by any measure.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <cstdint>
#include <deque>

#include "core/invalidation/server_info.hpp"

namespace cache_ext::invalidation {

/* Microseconds; the time of day, and of a clock that only counts. */
struct Moment
{
	int64_t day = 0;
	int64_t steady = 0;
};

class Retention
{
  public:
	/* What the server has said, when it was asked. */
	void looked(const ServerInfo &info, const Moment &at);

	/* Another server, of which nothing is known. */
	void forget_server();

	bool knows_server() const { return known_; }

	/* Items confirmed before this time of day cannot come back. */
	int64_t safe_before(const Moment &now);

  private:
	struct Jump
	{
		int64_t steady; /* when it was noticed */
		int64_t length;
	};

	void watch_clock(const Moment &now);
	void watch_replicas(const ServerInfo &info, int64_t steady);

	bool known_ = false;
	ServerInfo info_;
	int64_t looked_at_ = 0; /* steady, as all below */
	int replicas_ = 0;      /* that there are, or have been of late */
	int64_t replicas_at_ = 0;
	uint64_t offset_ = 0; /* the master's at offset_at_ */
	int64_t offset_at_ = 0;
	bool replicated_ = false; /* all of them have had what there was at replicated_at_ */
	int64_t replicated_at_ = 0;
	Moment last_;
	std::deque<Jump> jumps_; /* ahead */
};

} /* namespace cache_ext::invalidation */
