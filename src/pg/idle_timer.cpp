/*-------------------------------------------------------------------------
 *
 * idle_timer.cpp
 *		Giving back a connection that nobody uses; see idle_timer.hpp.
 *
 * The handler may interrupt this process anywhere, so what it shares is
 * volatile, and watched is the last to be set and the first to be cleared.
 *
 *-------------------------------------------------------------------------
 */
#include <csignal>

#include <sys/socket.h>

#include "pg/idle_timer.hpp"
#include "pg/redis_health.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "access/xact.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
}

namespace cache_ext::pg {

static volatile sig_atomic_t watched = -1; /* the socket */
static volatile sig_atomic_t was_counted = false;
static volatile sig_atomic_t in_use = 0;
static volatile sig_atomic_t used = false; /* since the timer looked last */
static TimeoutId timer = MAX_TIMEOUTS;

extern "C" {
static void
cache_ext_look_for_idleness(void)
{
	if (watched < 0 || in_use != 0)
		return;
	if (used)
	{
		used = false;
		return;
	}
	(void) shutdown(watched, SHUT_RDWR);
	watched = -1;
	if (was_counted)
		discount_connection();
	was_counted = false;
}
}

/* Errors switch all timers off, so it is looked at after each use and each abort. */
static void
start_timer() noexcept
{
	if (watched < 0 || idle_timeout_s == 0 || timer == MAX_TIMEOUTS || get_timeout_active(timer))
		return;

	int period_ms = idle_timeout_s * 1000;

	enable_timeout_every(timer, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), period_ms),
	                     period_ms);
}

extern "C" {
static void
cache_ext_restart_idle_timer(XactEvent event, void *)
{
	if (event == XACT_EVENT_ABORT)
		start_timer();
}
}

void
begin_idle_watch(int fd, bool counted)
{
	if (timer == MAX_TIMEOUTS)
	{
		RegisterXactCallback(cache_ext_restart_idle_timer, nullptr);
		timer = RegisterTimeout(USER_TIMEOUT, cache_ext_look_for_idleness);
	}
	was_counted = counted;
	used = true;
	watched = counted ? fd : -1;
}

void
end_idle_watch() noexcept
{
	watched = -1;
	if (was_counted)
		discount_connection();
	was_counted = false;
}

IdleWatchPause::IdleWatchPause() noexcept
{
	in_use = in_use + 1;
}

IdleWatchPause::~IdleWatchPause()
{
	used = true;
	in_use = in_use - 1;
	start_timer();
}

} /* namespace cache_ext::pg */
