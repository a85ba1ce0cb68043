/*-------------------------------------------------------------------------
 *
 * confirmation.cpp
 *		Waiting until Redis has confirmed a transaction (invalidation = sync).
 *
 * A transaction takes its number in the commit callback, which runs when the
 * transaction is visible to others.  The worker reads the last number before it
 * takes the snapshot of a batch, so that snapshot sees every transaction up to
 * the number, and confirms it when Redis has answered for all of them.
 *
 * The wait is in the resource-release callback after the locks: rows, relations
 * and advisory locks of the transaction are free by then, and others see it.
 * Interrupts are held there, and nothing may be raised, because the transaction
 * can no longer be undone: a cancel ends the wait with a warning, as it does for
 * a synchronous standby, and a terminated session leaves at once.
 *
 * While the worker has got nowhere with Redis for as long as somebody would
 * wait, nobody waits any more: an outage costs each session one warning a
 * commit, and no time.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/worker/confirmation.hpp"

#include "pg/settings.hpp"
#include "pg/waiting.hpp"

extern "C" {
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/resowner.h"
#include "utils/wait_event.h"
}

namespace cache_ext::worker {

namespace {

bool wanted = false;        /* by the transaction that is under way */
bool wanted_sweeps = false; /* its patterns as well */

/* Taken by the commit callback, for the callback that releases resources. */
pg::WorkerSlot *awaited = nullptr;
uint64 awaited_number = 0;

enum class Outcome
{
	kConfirmed,
	kLate,
	kAway,
	kCanceled,
	kTerminated
};

bool
confirmed(pg::WorkerSlot *slot, uint64 number, bool sweeps)
{
	pg::Confirmed numbers = pg::confirmed_numbers(slot);

	return (sweeps ? numbers.all : numbers.names) >= number;
}

Outcome
wait_until_confirmed(pg::WorkerSlot *slot, uint64 number, bool sweeps)
{
	pg::Deadline deadline(pg::invalidation_timeout_ms);

	for (;;)
	{
		ConditionVariablePrepareToSleep(pg::confirmation(slot));
		if (confirmed(slot, number, sweeps))
			return Outcome::kConfirmed;
		if (ProcDiePending)
			return Outcome::kTerminated;
		if (QueryCancelPending)
		{
			QueryCancelPending = false;
			return Outcome::kCanceled;
		}

		TimestampTz now = GetCurrentTimestamp();
		TimestampTz failing = pg::failing_since(slot);

		if (deadline.remaining_ms() == 0)
			return Outcome::kLate;
		if (failing != 0 && now - failing > static_cast<int64>(pg::invalidation_timeout_ms) * 1000)
			return Outcome::kAway;

		int events = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_POSTMASTER_DEATH,
		                       deadline.remaining_ms(), PG_WAIT_EXTENSION);

		if (events & WL_POSTMASTER_DEATH)
			return Outcome::kTerminated;
		ResetLatch(MyLatch);
	}
}

/* Says what became of it; never raises. */
void
await(pg::WorkerSlot *slot, uint64 number, bool sweeps)
{
	Outcome outcome = wait_until_confirmed(slot, number, sweeps);
	const char *detail =
	    "The transaction has committed, and its invalidations are queued and will be sent.";

	(void) ConditionVariableCancelSleep();
	pg::leave_wait(slot);
	SetLatch(MyLatch); /* whoever it was set for looks again */
	switch (outcome)
	{
	case Outcome::kConfirmed:
	case Outcome::kTerminated:
		break;
	case Outcome::kLate:
		ereport(WARNING, (errmsg("Redis has not confirmed the invalidations within %d ms",
		                         pg::invalidation_timeout_ms),
		                  errdetail("%s", detail)));
		break;
	case Outcome::kAway:
		ereport(WARNING, (errmsg("Redis has not confirmed the invalidations: it is away"),
		                  errdetail("%s", detail)));
		break;
	case Outcome::kCanceled:
		ereport(WARNING, (errmsg("canceling the wait for Redis due to user request"),
		                  errdetail("%s", detail)));
		break;
	}
}

void
on_release(ResourceReleasePhase phase, bool is_commit, bool is_top_level, void *)
{
	if (phase != RESOURCE_RELEASE_AFTER_LOCKS || !is_top_level || awaited == nullptr)
		return;

	pg::WorkerSlot *slot = awaited;

	awaited = nullptr;
	if (is_commit)
		await(slot, awaited_number, wanted_sweeps);
	else
		pg::leave_wait(slot);
	forget_confirmation();
}

} /* namespace */

void
register_confirmation()
{
	RegisterResourceReleaseCallback(on_release, nullptr);
}

void
want_confirmation(bool sweeps) noexcept
{
	wanted = true;
	wanted_sweeps = sweeps;
}

void
number_commit(pg::WorkerSlot *slot) noexcept
{
	if (!wanted)
		return;
	awaited_number = pg::take_number(slot);
	awaited = slot;
}

void
forget_confirmation() noexcept
{
	wanted = wanted_sweeps = false;
}

void
number_prepared(pg::WorkerSlot *slot) noexcept
{
	want_confirmation(true);
	number_commit(slot);
}

void
await_prepared()
{
	HOLD_INTERRUPTS();
	on_release(RESOURCE_RELEASE_AFTER_LOCKS, true, true, nullptr);
	RESUME_INTERRUPTS();
}

} /* namespace cache_ext::worker */
