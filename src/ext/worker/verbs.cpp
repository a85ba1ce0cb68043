/*-------------------------------------------------------------------------
 *
 * verbs.cpp
 *		What a worker does, one verb at a time.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/worker/verbs.hpp"

#include <utility>

#include "ext/cache/counters.hpp"
#include "ext/invalidation/outbox.hpp"
#include "ext/worker/agenda.hpp"
#include "ext/worker/start.hpp"
#include "pg/objects.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "catalog/pg_db_role_setting.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lwlock.h"
#include "utils/backend_status.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
}

namespace cache_ext::worker {

constexpr int kFirstPauseMs = 500; /* after a verb has failed, doubled each time */
constexpr int kLongestPauseMs = 60 * 1000;

Turn turn;

namespace {

/* Interrupts are held; false when the same was said a short while ago. */
bool
worth_logging(Verb *verb, const ErrorData *error)
{
	uint32 hash = static_cast<uint32>(error->sqlerrcode);

	for (const char *c = error->message; c != nullptr && *c != '\0'; ++c)
		hash = hash * 31 + static_cast<unsigned char>(*c);
	if (hash == verb->logged &&
	    !TimestampDifferenceExceeds(verb->logged_at, GetCurrentTimestamp(), kLogAgainMs))
		return false;
	verb->logged = hash;
	verb->logged_at = GetCurrentTimestamp();
	return true;
}

/* Looks anew, since the extension may have been dropped under the verb's feet. */
bool
still_installed()
{
	bool installed;

	StartTransactionCommand();
	installed = invalidation::outbox_exists();
	CommitTransactionCommand();
	return installed;
}

/* Say it in the log as the error it was. */
void
report_again(ErrorData *error)
{
	PG_TRY();
	{
		ThrowErrorData(error);
	}
	PG_CATCH();
	{
		EmitErrorReport();
		FlushErrorState();
	}
	PG_END_TRY();
}

void
recover(Verb *verb, MemoryContext context)
{
	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(context);

	ErrorData *error = CopyErrorData();

	FlushErrorState();
	AbortCurrentTransaction();
	LWLockReleaseAll();
	verb->pause_ms = verb->pause_ms == 0 ? kFirstPauseMs : Min(verb->pause_ms * 2, kLongestPauseMs);
	verb->not_before = in_ms(verb->pause_ms);
	turn.installed = still_installed();
	MemoryContextSwitchTo(context);
	RESUME_INTERRUPTS();

	/* Not while interrupts are held: raising releases them all, and one more would be too many. */
	if (turn.installed && worth_logging(verb, error))
		report_again(error);
}

} /* namespace */

void
attempt(Verb *verb, MemoryContext context)
{
	if (verb->pause_ms != 0 && GetCurrentTimestamp() < verb->not_before)
		return;

	pgstat_report_activity(STATE_RUNNING, verb->activity);
	PG_TRY();
	{
		verb->run();
		verb->pause_ms = 0;
	}
	PG_CATCH();
	{
		recover(verb, context);
	}
	PG_END_TRY();
	pgstat_report_activity(STATE_IDLE, nullptr);
	MemoryContextSwitchTo(context);
	MemoryContextReset(context);
}

void
run_housekeeping()
{
	StartTransactionCommand();
	turn.installed = invalidation::outbox_exists();
	if (!pg::objects_fit())
		ereport(LOG, (errmsg("cache_ext worker leaves database %u: its objects do not fit the "
		                     "library",
		                     MyDatabaseId),
		              errhint("Run ALTER EXTENSION cache_ext UPDATE there.")));
	if (turn.installed)
	{
		/* What ALTER DATABASE has set since this process began. */
		Relation settings = table_open(DbRoleSettingRelationId, AccessShareLock);
		Snapshot snapshot = RegisterSnapshot(GetCatalogSnapshot(DbRoleSettingRelationId));

		ApplySetting(snapshot, MyDatabaseId, InvalidOid, settings, PGC_S_DATABASE);
		UnregisterSnapshot(snapshot);
		table_close(settings, AccessShareLock);
	}
	CommitTransactionCommand();
}

void
run_fold()
{
	turn.folded = statistics::fold_next();
}

void
run_look_for_filling()
{
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	turn.filling_waits = statistics::filling_waits();
	PopActiveSnapshot();
	CommitTransactionCommand();
}

void
run_fill()
{
	turn.filling = statistics::fill_next();
}

void
run_delivery()
{
	turn.delivery = invalidation::deliver_batch();
}

void
run_vacuum()
{
	pgstat_report_stat(true); /* the counts of dead rows decide what is worth it */
	turn.left_over = statistics::vacuum_churned(std::exchange(turn.passed, 0));
}

void
run_outbox_vacuum()
{
	invalidation::vacuum_outbox();
}

void
run_expiry()
{
	turn.expiry = sessions::remove_expired();
}

/* Counts of now, added up over the tiers. */
static LogFigures
counted_figures()
{
	using namespace cache;
	TimestampTz since;
	Counts counts = counts_of_database(&since);
	auto events = [&](Tier tier, Event event) {
		return counts.tiers[static_cast<int>(tier)].events[static_cast<int>(event)];
	};

	return {events(Tier::kMemory, Event::kHit),
	        events(Tier::kRedis, Event::kHit),
	        events(Tier::kQuery, Event::kHit),
	        events(Tier::kQuery, Event::kMiss),
	        events(Tier::kRedis, Event::kError) + events(Tier::kQuery, Event::kError),
	        events(Tier::kQuery, Event::kStaleHit)};
}

/* A line for what has happened, none for nothing. */
void
run_log_figures()
{
	int seconds = 0;
	LogFigures figures = take_log_figures(counted_figures(), &seconds);
	uint64 reads = figures.memory + figures.redis + figures.queries + figures.nothing;

	if (reads + figures.errors == 0)
		return;
	StartTransactionCommand();
	ereport(pg::log_level,
	        (errmsg("cache of database \"%s\" in the last %d s: " UINT64_FORMAT
	                " from memory, " UINT64_FORMAT " from Redis, " UINT64_FORMAT
	                " by queries, " UINT64_FORMAT " not there, " UINT64_FORMAT
	                " errors, " UINT64_FORMAT " expired values given",
	                get_database_name(MyDatabaseId), seconds, figures.memory, figures.redis,
	                figures.queries, figures.nothing, figures.errors, figures.stale)));
	CommitTransactionCommand();
}

} /* namespace cache_ext::worker */
