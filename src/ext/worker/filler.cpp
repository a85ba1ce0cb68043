/*-------------------------------------------------------------------------
 *
 * filler.cpp
 *		The process that fills and verifies statistics for a database's worker.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/worker/start.hpp"
#include "ext/worker/verbs.hpp"
#include "pg/guard.hpp"

extern "C" {
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"

PGDLLEXPORT void cache_ext_filler_main(Datum database);
}

namespace cache_ext::worker {

constexpr int kAgainMs = 100;          /* somebody was in the way */
constexpr int kPatienceMs = 60 * 1000; /* with the same one */

/* Until nothing can be done. */
static void
fill_all()
{
	MemoryContext context =
	    AllocSetContextCreate(TopMemoryContext, "cache_ext filler", ALLOCSET_DEFAULT_SIZES);
	Verb fill = {"cache_ext: filling statistics", run_fill, 0, 0, 0, 0};
	TimestampTz limit = in_ms(kPatienceMs);

	while (GetCurrentTimestamp() < limit)
	{
		CHECK_FOR_INTERRUPTS();
		turn.filling = statistics::FillTurn::kLater;
		attempt(&fill, context);
		if (!turn.installed || turn.filling == statistics::FillTurn::kNothing)
			return;
		if (turn.filling == statistics::FillTurn::kDone)
		{
			limit = in_ms(kPatienceMs);
			continue;
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_TIMEOUT, kAgainMs,
		                 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

} /* namespace cache_ext::worker */

extern "C" void
cache_ext_filler_main(Datum database)
{
	using namespace cache_ext;

	worker::is_worker = true;
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(database), InvalidOid, 0);
	worker::pin_settings("cache_ext filler");
	pg::guard([] { worker::fill_all(); });
	proc_exit(0);
}
