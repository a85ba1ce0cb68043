/*-------------------------------------------------------------------------
 *
 * loop.cpp
 *		The background worker of a database.
 *
 * A worker is started by the first commit that leaves work behind and goes when
 * there has been none for some seconds, so that DROP DATABASE and CREATE
 * DATABASE ... TEMPLATE find the database free; while Redis is away or could
 * still forget what it was told it stays, and is asked to go by those commands
 * (where the library is preloaded, so that every session has the hook).
 *
 * It is a loop of verbs.  Each runs in transactions of its own, is safe to
 * repeat after a crash, and fails alone: its error is logged once, its
 * transaction rolled back and the verb left alone for a while.  The others go
 * on, and what the process knows (its connection to Redis, where a SCAN has
 * got to) is kept; leaving and being restarted would let one broken statistic
 * stop every invalidation.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/delivery.hpp"
#include "ext/worker/child.hpp"
#include "ext/worker/start.hpp"
#include "ext/worker/verbs.hpp"
#include "ext/worker/agenda.hpp"
#include "pg/guard.hpp"
#include "pg/settings.hpp"
#include "pg/worker_table.hpp"

extern "C" {
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"

PGDLLEXPORT void cache_ext_worker_main(Datum database);
}

namespace cache_ext::worker {

namespace {

constexpr int kIdleExitMs = 3000; /* without work */
constexpr int kVacuumMs = 100;    /* between vacuums while there is work */
constexpr int kUnreadVacuumMs = 1000;
constexpr int kVacuumAgainMs = 3000; /* while an old snapshot or a lock is in the way */
constexpr int kHeldOffMs = 100;      /* to the next attempt at a fold that was held off */
constexpr int kUnreadAfterMs = 5000; /* without a reader of partial rows */
constexpr int kUnreadFoldMs = 100;   /* between folds then */
constexpr int kFillAgainMs = 500;    /* to the next look after a filler was started */
constexpr int kFillRetries = 5;
constexpr int kWarmAgainMs = 1000; /* to the next look after a warmer was started */
constexpr int kHeldMs = 20;        /* the longest sleep that nothing interrupts */
constexpr int kClaimMs = 2000;     /* for a predecessor to be gone */

bool
claim_slot(pg::WorkerSlot *slot)
{
	TimestampTz limit = in_ms(kClaimMs);

	/* One that was started while another was asked to make room would take it again. */
	while (pg::asked_to_keep_away(slot) || !pg::claim_worker_slot(slot))
	{
		if (GetCurrentTimestamp() > limit || pg::asked_to_keep_away(slot))
			return false;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_TIMEOUT, 10,
		                 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return true;
}

/* Terminated, it may have taken work that it has not done: the launcher starts another one. */
void
on_exit(int code, Datum argument)
{
	auto *slot = reinterpret_cast<pg::WorkerSlot *>(DatumGetPointer(argument));

	if (code != 0)
		pg::mark_work(slot, pg::kWorkOutbox);
	pg::release_worker_slot(slot);
}

class Loop
{
  public:
	Loop(pg::WorkerSlot *slot, bool look_once) : slot_(slot), look_once_(look_once)
	{
		context_ = AllocSetContextCreate(TopMemoryContext, "cache_ext worker turn",
		                                 ALLOCSET_DEFAULT_SIZES);
		MemoryContextSwitchTo(context_);
	}

	/* Until there is a reason to leave. */
	void run()
	{
		for (;;)
		{
			CHECK_FOR_INTERRUPTS();
			if (ConfigReloadPending)
			{
				ConfigReloadPending = false;
				ProcessConfigFile(PGC_SIGHUP);
			}
			if (pg::take_work(slot_, pg::kWorkWarming) != 0)
			{
				last_work_ = GetCurrentTimestamp();
				next_sweep_ = Min(next_sweep_, last_work_);
				next_warm_ = 0;
			}
			if (pg::asked_to_leave(slot_) || ShutdownRequestPending)
			{
				/* Work that stays behind is somebody's to start a worker for. */
				filler_.stop();
				warmer_.stop();
				if (turn.delivery.occupied || fold_wanted_ || fill_wanted_)
					pg::mark_work(slot_, pg::kAllWork);
				attempt(&finish_, context_);
				return;
			}
			if (GetCurrentTimestamp() >= next_sweep_)
				sweep();
			if (!turn.installed)
				return;
			if (delivery_due())
				deliver();
			if (turn.installed && fold_due())
				fold();
			if (turn.installed && fill_due())
				fill();
			if (turn.installed && GetCurrentTimestamp() >= next_warm_)
				warm();
			if (turn.installed && expiry_due())
				expire();
			if (!turn.installed)
				return;
			if (vacuum_due())
				vacuum();
			if (may_leave())
				return;
			sleep();
		}
	}

  private:
	bool waits(uint32 work) const { return (pg::waiting_work(slot_) & work) != 0; }

	/* What nobody told us of: a COMMIT PREPARED, rows from before a crash, new settings. */
	void sweep()
	{
		if (next_sweep_ == 0)
			fold_wanted_ = fill_wanted_ = true;
		if (pg::verify_interval_s > 0 && GetCurrentTimestamp() >= next_verification_)
		{
			fill_wanted_ = true;
			fill_retries_ = 0;
			next_verification_ = in_ms(pg::verify_interval_s * INT64CONST(1000));
		}
		attempt(&housekeeping_, context_);
		if (turn.installed)
			note_intervals(pg::warm_interval_s, pg::log_every_s);
		else
			forget_agenda(MyDatabaseId);
		if (log_is_due())
			attempt(&figures_, context_);
		next_sweep_ = in_ms(kSweepMs);
		if (!turn.delivery.hold)
			next_delivery_ = 0;
		pgstat_report_stat(false);
	}

	bool delivery_due() const
	{
		if (GetCurrentTimestamp() >= next_delivery_)
			return true;
		return !turn.delivery.hold && waits(pg::kWorkOutbox);
	}

	void deliver()
	{
		if (pg::take_work(slot_, pg::kWorkOutbox) != 0)
			last_work_ = GetCurrentTimestamp();
		attempt(&delivery_, context_);
		if (delivery_.pause_ms != 0)
			turn.delivery = {delivery_.pause_ms, true, false, true};
		next_delivery_ = in_ms(turn.delivery.wait_ms);
		if (turn.delivery.occupied)
			last_work_ = GetCurrentTimestamp();
		attempt(&outbox_vacuum_, context_);
	}

	bool is_read()
	{
		TimestampTz now = GetCurrentTimestamp();

		if (pg::take_readers(slot_))
			last_read_ = now;
		return !TimestampDifferenceExceeds(last_read_, now, kUnreadAfterMs);
	}

	/* Larger folds cost less a row, but readers pay for what is pending. */
	int fold_interval()
	{
		return is_read() ? pg::fold_interval_ms : Max(pg::fold_interval_ms, kUnreadFoldMs);
	}

	/* The flag is lowered by the fold itself: what comes meanwhile needs no latch. */
	bool fold_due()
	{
		if (!fold_wanted_ && waits(pg::kWorkPartialRows))
			fold_wanted_ = true;
		return fold_wanted_ && GetCurrentTimestamp() >= next_fold_;
	}

	void fold()
	{
		if (pg::take_work(slot_, pg::kWorkPartialRows) != 0)
			last_work_ = GetCurrentTimestamp();
		attempt(&fold_, context_);
		/* Whoever keeps folds away needs longer than one takes. */
		next_fold_ = in_ms(Max(turn.folded < 0 ? kHeldOffMs : fold_interval(), fold_.pause_ms));
		if (fold_.pause_ms != 0)
			return;
		fold_wanted_ = turn.folded != 0;
		if (turn.folded > 0)
		{
			churned_ = true;
			turn.passed += turn.folded;
			last_work_ = GetCurrentTimestamp();
		}
	}

	/* What somebody asks for while the filler runs is looked at when it has ended. */
	bool fill_due()
	{
		if (filler_.running())
			return false;
		if (pg::take_work(slot_, pg::kWorkFilling) != 0)
		{
			fill_wanted_ = true;
			fill_retries_ = 0;
			next_fill_ = 0;
			last_work_ = GetCurrentTimestamp();
		}
		return fill_wanted_ && GetCurrentTimestamp() >= next_fill_;
	}

	/* A filler that was terminated is started again, if there is still something to do. */
	void fill()
	{
		turn.filling_waits = false;
		attempt(&look_, context_);
		fill_wanted_ = turn.filling_waits && fill_retries_++ < kFillRetries;
		next_fill_ = in_ms(kFillAgainMs);
		if (!fill_wanted_ || filler_.start())
			return;
		attempt(&fill_, context_);
		if (turn.filling == statistics::FillTurn::kDone)
			fill_retries_ = 0;
	}

	/* What cannot be started now is due at the next look. */
	void warm()
	{
		Warming what = warmer_.running() ? Warming::kNothing : due_warming();

		if (what != Warming::kNothing)
			(void) warmer_.start(static_cast<char>(what));
		next_warm_ = in_ms(kWarmAgainMs);
	}

	bool vacuum_due() const
	{
		TimestampTz now = GetCurrentTimestamp();

		return (churned_ && now >= next_vacuum_) || (left_over_ && now >= next_leftovers_);
	}

	/* Sessions that were stored are looked at when the next step is due. */
	bool expiry_due()
	{
		if (pg::take_work(slot_, pg::kWorkSessions) != 0)
		{
			sessions_ = true;
			last_work_ = GetCurrentTimestamp();
		}
		return GetCurrentTimestamp() >= next_expiry_;
	}

	void expire()
	{
		attempt(&expiry_, context_);
		if (turn.expiry.complete)
			sessions_ = turn.expiry.kept;
		next_expiry_ = in_ms(Max(turn.expiry.wait_ms, expiry_.pause_ms));
	}

	void vacuum()
	{
		turn.left_over = false;
		attempt(&vacuum_, context_);
		churned_ = false;
		left_over_ = turn.left_over;
		next_vacuum_ = in_ms(is_read() ? kVacuumMs : kUnreadVacuumMs);
		next_leftovers_ = in_ms(kVacuumAgainMs);
	}

	bool may_leave()
	{
		if (turn.delivery.occupied || churned_ || left_over_ || pg::waiting_work(slot_) != 0)
			return false;
		if ((turn.delivery.watching || sessions_) && preloaded)
			return false;
		if ((fold_wanted_ && fold_.pause_ms == 0) || fill_wanted_ || filler_.running())
			return false;
		if (warmer_.running() || warming_waits())
			return false;
		if (!look_once_ &&
		    !TimestampDifferenceExceeds(last_work_, GetCurrentTimestamp(), kIdleExitMs))
			return false;
		attempt(&finish_, context_);
		return pg::release_idle_slot(slot_);
	}

	/*
	 * While a delivery is held back, commits would only wake us to sleep again:
	 * leave the latch alone then.
	 */
	void sleep()
	{
		TimestampTz until = Min(Min(next_sweep_, next_delivery_), Min(next_warm_, next_expiry_));
		bool held = turn.delivery.hold && waits(pg::kWorkOutbox);

		/* Waiting for Redis has used up the latch; the flags are what counts. */
		if ((waits(pg::kWorkOutbox) && !held) || (waits(pg::kWorkPartialRows) && !fold_wanted_) ||
		    (waits(pg::kWorkFilling) && !filler_.running()) || waits(pg::kWorkWarming))
			return;

		int events = WL_EXIT_ON_PM_DEATH | WL_TIMEOUT;

		if (fold_wanted_)
			until = Min(until, next_fold_);
		if (fill_wanted_)
			until = Min(until, next_fill_);
		if (churned_)
			until = Min(until, next_vacuum_);
		if (left_over_)
			until = Min(until, next_leftovers_);

		long wait_ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

		if (!held || wait_ms > kHeldMs)
			events |= WL_LATCH_SET;
		if (wait_ms > kHeldMs)
		{
			/* A request to stop that finds us idle is no error: no FATAL in the log. */
			pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
			(void) WaitLatch(MyLatch, events, wait_ms, PG_WAIT_EXTENSION);
			pqsignal(SIGTERM, die);
		}
		else if (wait_ms > 0)
			(void) WaitLatch(MyLatch, events, wait_ms, PG_WAIT_EXTENSION);
		if (events & WL_LATCH_SET)
			ResetLatch(MyLatch);
	}

	pg::WorkerSlot *slot_;
	bool look_once_;
	MemoryContext context_;
	Verb housekeeping_ = {"cache_ext: looking for work", run_housekeeping, 0, 0, 0, 0};
	Verb delivery_ = {"cache_ext: delivering invalidations", run_delivery, 0, 0, 0, 0};
	Verb fold_ = {"cache_ext: folding partial rows", run_fold, 0, 0, 0, 0};
	Verb look_ = {"cache_ext: looking for statistics to fill", run_look_for_filling, 0, 0, 0, 0};
	Verb fill_ = {"cache_ext: filling statistics", run_fill, 0, 0, 0, 0};
	Verb vacuum_ = {"cache_ext: vacuuming", run_vacuum, 0, 0, 0, 0};
	Verb outbox_vacuum_ = {"cache_ext: vacuuming the outbox", run_outbox_vacuum, 0, 0, 0, 0};
	Verb expiry_ = {"cache_ext: removing sessions that have ended", run_expiry, 0, 0, 0, 0};
	Verb figures_ = {"cache_ext: logging figures", run_log_figures, 0, 0, 0, 0};
	Verb finish_ = {"cache_ext: leaving", invalidation::finish_delivery, 0, 0, 0, 0};
	bool started_ = false;
	bool fold_wanted_ = false;
	bool fill_wanted_ = false;
	int fill_retries_ = 0;
	Child filler_{"cache_ext filler", "cache_ext_filler_main"};
	Child warmer_{"cache_ext warmer", "cache_ext_warmer_main"};
	bool churned_ = false;
	bool sessions_ = false;  /* some are in the table, and their time will come */
	bool left_over_ = false; /* by the last vacuum */
	TimestampTz next_sweep_ = 0;
	TimestampTz next_delivery_ = 0;
	TimestampTz next_fold_ = 0;
	TimestampTz last_read_ = 0;
	TimestampTz next_fill_ = 0;
	TimestampTz next_warm_ = 0;
	TimestampTz next_expiry_ = 0;
	TimestampTz next_verification_ = 0;
	TimestampTz next_vacuum_ = 0;
	TimestampTz next_leftovers_ = 0;
	TimestampTz last_work_ = GetCurrentTimestamp();
};

} /* namespace */

} /* namespace cache_ext::worker */

extern "C" void
cache_ext_worker_main(Datum database)
{
	using namespace cache_ext;

	worker::is_worker = true;
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(database), InvalidOid, 0);

	pg::WorkerSlot *slot = pg::my_worker_slot();

	if (slot == nullptr || !worker::claim_slot(slot))
		proc_exit(0);
	before_shmem_exit(worker::on_exit, PointerGetDatum(slot));
	worker::pin_settings("cache_ext worker");
	pg::guard([&] {
		worker::Loop loop(slot, MyBgworkerEntry->bgw_extra[0] == worker::kLookOnce);

		loop.run();
	});
	proc_exit(0);
}
