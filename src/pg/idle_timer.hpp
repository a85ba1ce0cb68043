/*-------------------------------------------------------------------------
 *
 * idle_timer.hpp
 *		A connection that nobody has used for long is given back, although its
 *		session sleeps.
 *
 * A backend that waits for its client runs no code of ours but signal handlers.
 * So a timer looks now and then, and its handler does only what a handler may:
 * it shuts the socket down, which frees the other end, and counts the
 * connection out.  The descriptor stays until the next use finds it ended.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "pg/server.hpp"

namespace cache_ext::pg {

/* Watch this socket from the end of the call on; counted: by count_connection(). */
void begin_idle_watch(int fd, bool counted);

/* Before the socket is closed; counts the connection out when the timer has not.  Idempotent. */
void end_idle_watch() noexcept;

/* While one is alive the connection is in use. */
class IdleWatchPause
{
  public:
	IdleWatchPause() noexcept;
	~IdleWatchPause();
	IdleWatchPause(const IdleWatchPause &) = delete;
	IdleWatchPause &operator=(const IdleWatchPause &) = delete;
};

} /* namespace cache_ext::pg */
