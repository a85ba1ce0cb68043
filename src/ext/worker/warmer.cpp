/*-------------------------------------------------------------------------
 *
 * warmer.cpp
 *		The process that warms a database's cache for its worker.
 *
 * One at a time on the server, one entry after the other, each in a transaction
 * of its own and as one of cache_ext.max_loads.  What fails is tried again after
 * pauses that grow, in which nothing is held.  A query has a limit, so that one
 * that never ends does not keep the others cold.
 *
 *-------------------------------------------------------------------------
 */
#include <string>
#include <vector>

#include "core/base/error.hpp"
#include "ext/cache/hot_list.hpp"
#include "ext/cache/warm.hpp"
#include "ext/invalidation/outbox.hpp"
#include "ext/worker/start.hpp"
#include "ext/worker/agenda.hpp"
#include "pg/guard.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

PGDLLEXPORT void cache_ext_warmer_main(Datum database);
}

namespace cache_ext::worker {

namespace {

constexpr int kAttempts = 4; /* an entry */
constexpr int kFirstPauseMs = 1000;
constexpr int kLeastLimitMs = 60 * 1000; /* for one query */

void
begin_transaction(int limit_ms)
{
	pgstat_report_activity(STATE_RUNNING, "cache_ext: warming the cache");
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	enable_timeout_after(STATEMENT_TIMEOUT, limit_ms);
}

void
commit()
{
	disable_timeout(STATEMENT_TIMEOUT, false);
	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_stat(false);
}

void
abort_transaction()
{
	HOLD_INTERRUPTS();
	disable_timeout(STATEMENT_TIMEOUT, false);
	AbortCurrentTransaction();
	LWLockReleaseAll();
	RESUME_INTERRUPTS();
}

/* What is to be warmed: a key, or whatever a loader names. */
struct Item
{
	std::string key; /* empty: the loader's */
	std::string pattern;
};

class Warmer
{
  public:
	explicit Warmer(Warming what) : what_(what)
	{
		context_ =
		    AllocSetContextCreate(TopMemoryContext, "cache_ext warmer", ALLOCSET_DEFAULT_SIZES);
		limit_ms_ = Max(kLeastLimitMs, pg::warm_interval_s * 1000);
	}

	void run()
	{
		std::vector<Item> items;

		if (!in_transaction([&] { items = first_items(); }))
		{
			report(1);
			return;
		}
		for (int attempt = 0; !items.empty() && attempt < kAttempts; ++attempt)
		{
			if (attempt > 0)
				pause(kFirstPauseMs << (attempt - 1));
			error_.clear();
			items = try_all(std::move(items));
		}
		report(static_cast<uint32>(items.size()));
	}

  private:
	/* False: it has raised error_. */
	template <typename Fn> bool in_transaction(Fn &&fn)
	{
		bool well = false;

		MemoryContextSwitchTo(context_);
		try
		{
			pg::call([&] { begin_transaction(limit_ms_); });
			fn();
			pg::call([] { commit(); });
			well = true;
		}
		catch (const pg::PgError &error)
		{
			note(error.edata()->message);
		}
		catch (const Error &error)
		{
			note(error.message().c_str());
		}
		if (!well)
			pg::call([] { abort_transaction(); });
		pgstat_report_activity(STATE_IDLE, nullptr);
		MemoryContextSwitchTo(context_);
		MemoryContextReset(context_);
		return well;
	}

	void note(const char *message) { error_ = message != nullptr ? message : "unknown error"; }

	std::vector<Item> first_items()
	{
		std::vector<Item> items;

		if (!invalidation::outbox_exists() || !cache::can_warm())
			return items;
		if (what_ == Warming::kHottest)
			for (std::string &key : cache::hottest_before())
				items.push_back({std::move(key), {}});
		else
			for (const auto &loader : cache::all_loaders())
				items.push_back({{}, loader->pattern});
		return items;
	}

	/* Those that failed; keys that loaders name are tried with the rest. */
	std::vector<Item> try_all(std::vector<Item> &&items)
	{
		std::vector<Item> failed;
		std::string first_error;

		for (size_t i = 0; i < items.size(); ++i)
		{
			std::vector<Item> more;

			pg::call([] { CHECK_FOR_INTERRUPTS(); });
			if (!in_transaction([&] { more = warm(items[i]); }))
			{
				if (failed.empty())
					first_error = "\"" + (items[i].key.empty() ? items[i].pattern : items[i].key) +
					              "\": " + error_;
				failed.push_back(items[i]);
			}
			for (Item &item : more)
				items.push_back(std::move(item));
		}
		error_ = first_error;
		return failed;
	}

	std::vector<Item> warm(const Item &item)
	{
		std::vector<Item> more;

		if (what_ == Warming::kHottest)
			loaded_ += cache::bring_to_memory(item.key) ? 1 : 0;
		else if (item.key.empty())
		{
			for (const auto &loader : cache::all_loaders())
				if (loader->pattern == item.pattern)
				{
					auto kept = loader; /* the list may be read anew meanwhile */

					for (std::string &key : cache::keys_to_warm(kept))
						more.push_back({std::move(key), item.pattern});
					break;
				}
		}
		else if (auto match = cache::find_loader(item.key);
		         match.loader != nullptr && match.loader->pattern == item.pattern)
		{
			cache::load_key(item.key, match);
			++loaded_;
		}
		return more;
	}

	static void pause(long ms)
	{
		pg::call([&] {
			TimestampTz end = in_ms(ms);

			for (long left = ms; left > 0;
			     left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end))
			{
				(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_TIMEOUT, left,
				                 PG_WAIT_EXTENSION);
				ResetLatch(MyLatch);
				CHECK_FOR_INTERRUPTS();
				if (!ConfigReloadPending)
					continue;
				ConfigReloadPending = false;
				ProcessConfigFile(PGC_SIGHUP);
			}
		});
	}

	void report(uint32 failed)
	{
		error_.resize(static_cast<size_t>(
		    pg_mbcliplen(error_.data(), static_cast<int>(error_.size()), kErrorBytes)));
		if (!end_warming(what_, loaded_, failed, failed > 0 ? error_.c_str() : ""))
			return;

		const char *what = what_ == Warming::kHottest ? "hottest cache entries of before"
		                                              : "cache entries that loaders name";
		const char *error = error_.c_str();
		uint32 loaded = loaded_;

		pg::call([&] {
			if (failed == 0)
				ereport(pg::log_level, (errmsg("warmed %u %s", loaded, what)));
			else
				ereport(pg::log_level,
				        (errmsg("could not warm %u of %u %s", failed, failed + loaded, what),
				         errdetail_internal("%s", error)));
		});
	}

	static constexpr int kErrorBytes = sizeof(WarmReport::error) - 1;

	Warming what_;
	MemoryContext context_;
	int limit_ms_;
	uint32 loaded_ = 0;
	std::string error_;
};

} /* namespace */

} /* namespace cache_ext::worker */

extern "C" void
cache_ext_warmer_main(Datum database)
{
	using namespace cache_ext;

	auto what = static_cast<worker::Warming>(MyBgworkerEntry->bgw_extra[0]);

	worker::is_worker = true;
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(database), InvalidOid, 0);
	worker::pin_settings("cache_ext warmer");
	if (worker::begin_warming(what))
		pg::guard([&] { worker::Warmer(what).run(); });
	proc_exit(0);
}
