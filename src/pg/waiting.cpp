/*-------------------------------------------------------------------------
 *
 * waiting.cpp
 *		Waiting for a descriptor; see waiting.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include <algorithm>

#include "pg/guard.hpp"
#include "pg/waiting.hpp"

extern "C" {
#include "pgstat.h"
#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#endif
}

namespace cache_ext::pg {

constexpr int kDescriptor = 0; /* position in the set */
constexpr long kMomentMs = 10;
constexpr long kLookMs = 20; /* how often a wait looks whether it is in vain */

void
Waiter::open(int fd)
{
	close();
	call([&] {
#if PG_VERSION_NUM >= 170000
		set_ = CreateWaitEventSet(nullptr, 3);
#else
		set_ = CreateWaitEventSet(TopMemoryContext, 3);
#endif
		AddWaitEventToSet(set_, WL_SOCKET_READABLE, fd, nullptr, nullptr);
		AddWaitEventToSet(set_, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, nullptr);
		AddWaitEventToSet(set_, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, nullptr, nullptr);
	});
}

void
Waiter::close() noexcept
{
	if (set_ != nullptr)
		FreeWaitEventSet(set_);
	set_ = nullptr;
}

bool
Waiter::wait(uint32 events, const Deadline &deadline)
{
	bool looked = false; /* an answer that is there already is worth more than others' failure */

	for (;;)
	{
		long remaining = deadline.remaining_ms();

		if (remaining <= 0 || (looked && deadline.in_vain()))
			return false;
		if (deadline.can_be_vain())
			remaining = std::min(remaining, kLookMs);
		looked = true;

		bool ready = call([&] {
			WaitEvent event;

			CHECK_FOR_INTERRUPTS();
			ModifyWaitEvent(set_, kDescriptor, events, nullptr);
			if (WaitEventSetWait(set_, remaining, &event, 1, PG_WAIT_EXTENSION) == 0)
				return false;
			if (event.events & WL_LATCH_SET)
			{
				ResetLatch(MyLatch);
				CHECK_FOR_INTERRUPTS();
				return false;
			}
			return true;
		});

		if (ready)
			return true;
	}
}

bool
pause_briefly(const Deadline &deadline)
{
	long remaining = std::min(deadline.remaining_ms(), kMomentMs);

	if (remaining <= 0)
		return false;
	call([&] {
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, remaining,
		                 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	});
	return true;
}

} /* namespace cache_ext::pg */
