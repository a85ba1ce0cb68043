/*-------------------------------------------------------------------------
 *
 * delivery_wait.cpp
 *		Waiting for the worker; see delivery_wait.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/cache/delivery_wait.hpp"

#include "ext/worker.hpp"
#include "pg/guard.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "access/xlog.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/timestamp.h"
}

namespace cache_ext::cache {

constexpr int kLookAgainMs = 1;

DeliveryWait::DeliveryWait()
    : end_(GetCurrentTimestamp() + pg::command_timeout_ms * INT64CONST(1000))
{
}

bool
DeliveryWait::over() const
{
	return GetCurrentTimestamp() >= end_;
}

bool
DeliveryWait::pause() const
{
	if (over())
		return false;
	pg::call([] {
		if (!RecoveryInProgress())
			worker::wake();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_TIMEOUT, kLookAgainMs,
		                 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	});
	return true;
}

} /* namespace cache_ext::cache */
