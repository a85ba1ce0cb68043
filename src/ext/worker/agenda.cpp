/*-------------------------------------------------------------------------
 *
 * agenda.cpp
 *		What workers do at times of their own; see agenda.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/worker/agenda.hpp"

#include "pg/shared_memory.hpp"
#include "pg/worker_table.hpp"

extern "C" {
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/datetime.h"

PG_FUNCTION_INFO_V1(cache_ext_warm_report);
}

namespace cache_ext::worker {

namespace {

constexpr const char *kTranche = "cache_ext agenda";
constexpr int kHottestAttempts = 3; /* a warmer that is terminated is started again */

enum Outcome
{
	kNone,
	kWell,
	kFailing
};

struct Slot
{
	Oid database; /* invalid: free */
	WarmReport report;
	TimestampTz due_at;   /* named keys; meaningful while interval_s > 0 */
	int hottest_attempts; /* left; 0: not to be loaded */
	bool hottest_asked;   /* in this life of the server */
	Outcome said;
	int log_every_s;
	TimestampTz logged_at; /* the last line, or when the setting was first seen */
	LogFigures logged;     /* the counts of then */
};

struct Table
{
	LWLock *lock;
	int warmer;  /* process number, 0: nobody is warming */
	Oid warming; /* where */
	Slot slots[pg::kWorkerSlots];
};

Table *table = nullptr;

void
request_table()
{
	RequestAddinShmemSpace(sizeof(Table));
	RequestNamedLWLockTranche(kTranche, 1);
}

void
attach_table()
{
	table = pg::attach_shared<Table>("cache_ext agenda", sizeof(Table), [](Table *fresh) {
		memset(fresh, 0, sizeof(*fresh));
		fresh->lock = &GetNamedLWLockTranche(kTranche)->lock;
	});
}

pg::SharedArea area = {request_table, attach_table};

/* The lock is held; a null pointer when there is none, and no room for one. */
Slot *
slot_of(Oid database, bool make)
{
	Slot *free = nullptr;

	for (Slot &slot : table->slots)
	{
		if (slot.database == database)
			return &slot;
		if (!OidIsValid(slot.database) && free == nullptr)
			free = &slot;
	}
	if (free != nullptr && make)
		free->database = database;
	return make ? free : nullptr;
}

class Held
{
  public:
	explicit Held(LWLockMode mode) noexcept { LWLockAcquire(table->lock, mode); }
	~Held() { LWLockRelease(table->lock); }
	Held(const Held &) = delete;
	Held &operator=(const Held &) = delete;
};

Warming
due(const Slot &slot, TimestampTz now)
{
	if (slot.hottest_attempts > 0)
		return Warming::kHottest;
	return slot.report.interval_s > 0 && slot.due_at <= now ? Warming::kNamed : Warming::kNothing;
}

TimestampTz
log_due_at(const Slot &slot)
{
	return slot.log_every_s > 0 ? slot.logged_at + slot.log_every_s * USECS_PER_SEC : DT_NOEND;
}

/* The warmer goes, however it comes. */
void
leave(int, Datum)
{
	Held held(LW_EXCLUSIVE);

	if (table->warmer == MyProcPid)
		table->warmer = 0;
}

} /* namespace */

void
register_agenda()
{
	pg::add_shared_area(&area);
}

void
note_intervals(int warm, int log)
{
	if (table == nullptr)
		return;

	Held held(LW_EXCLUSIVE);
	Slot *slot = slot_of(MyDatabaseId, warm > 0 || log > 0);

	if (slot == nullptr)
		return;
	if (slot->report.interval_s != warm)
		slot->due_at = GetCurrentTimestamp();
	slot->report.interval_s = warm;
	if (slot->log_every_s == 0)
		slot->logged_at = GetCurrentTimestamp();
	slot->log_every_s = log;
}

bool
log_is_due()
{
	if (table == nullptr)
		return false;

	Held held(LW_SHARED);
	Slot *slot = slot_of(MyDatabaseId, false);

	return slot != nullptr && log_due_at(*slot) <= GetCurrentTimestamp();
}

/* Figures that have become fewer were reset meanwhile. */
static uint64
added(uint64 now, uint64 before)
{
	return now >= before ? now - before : now;
}

LogFigures
take_log_figures(const LogFigures &counted, int *seconds)
{
	Held held(LW_EXCLUSIVE);
	Slot *slot = slot_of(MyDatabaseId, false);
	TimestampTz now = GetCurrentTimestamp();

	if (slot == nullptr)
		return {};

	LogFigures before = slot->logged;

	*seconds = static_cast<int>((now - slot->logged_at) / USECS_PER_SEC);
	slot->logged = counted;
	slot->logged_at = now;
	return {added(counted.memory, before.memory),   added(counted.redis, before.redis),
	        added(counted.queries, before.queries), added(counted.nothing, before.nothing),
	        added(counted.errors, before.errors),   added(counted.stale, before.stale)};
}

Warming
due_warming()
{
	if (table == nullptr)
		return Warming::kNothing;

	Held held(LW_SHARED);
	Slot *slot = slot_of(MyDatabaseId, false);

	if (slot == nullptr || table->warmer != 0)
		return Warming::kNothing;
	return due(*slot, GetCurrentTimestamp());
}

bool
warming_waits()
{
	if (table == nullptr)
		return false;

	Held held(LW_SHARED);
	Slot *slot = slot_of(MyDatabaseId, false);

	return slot != nullptr && ((table->warmer != 0 && table->warming == MyDatabaseId) ||
	                           due(*slot, GetCurrentTimestamp()) != Warming::kNothing);
}

bool
begin_warming(Warming what)
{
	if (table == nullptr)
		return false;

	Held held(LW_EXCLUSIVE);
	Slot *slot = slot_of(MyDatabaseId, false);
	TimestampTz now = GetCurrentTimestamp();

	if (slot == nullptr || (table->warmer != 0 && table->warmer != MyProcPid) ||
	    due(*slot, now) != what)
		return false;
	if (table->warmer == 0)
		before_shmem_exit(leave, 0);
	table->warmer = MyProcPid;
	table->warming = MyDatabaseId;
	if (what == Warming::kHottest)
		--slot->hottest_attempts;
	else
		slot->due_at = now + slot->report.interval_s * USECS_PER_SEC;
	return true;
}

bool
end_warming(Warming what, uint32 loaded, uint32 failed, const char *error)
{
	Held held(LW_EXCLUSIVE);
	Slot *slot = slot_of(MyDatabaseId, false);

	if (slot == nullptr)
		return false;
	slot->report.ended_at = GetCurrentTimestamp();
	slot->report.loaded = loaded;
	slot->report.failed = failed;
	strlcpy(slot->report.error, error, sizeof(slot->report.error));
	if (what == Warming::kHottest)
		slot->hottest_attempts = 0;
	if (what == Warming::kHottest || loaded + failed == 0)
		return loaded + failed > 0;

	Outcome outcome = failed > 0 ? kFailing : kWell;
	bool changed = outcome != slot->said;

	slot->said = outcome;
	return changed;
}

void
expect_hottest(Oid database)
{
	Held held(LW_EXCLUSIVE);
	Slot *slot = slot_of(database, true);

	if (slot == nullptr || slot->hottest_asked)
		return;
	slot->hottest_asked = true;
	slot->hottest_attempts = kHottestAttempts;
}

int
databases_with_agenda(Oid *databases, int limit, TimestampTz *next)
{
	Held held(LW_SHARED);
	TimestampTz now = GetCurrentTimestamp();
	int count = 0;

	*next = now + USECS_PER_HOUR;
	for (const Slot &slot : table->slots)
	{
		if (!OidIsValid(slot.database))
			continue;
		if ((due(slot, now) != Warming::kNothing || log_due_at(slot) <= now) && count < limit)
			databases[count++] = slot.database;
		if (slot.report.interval_s > 0 && slot.due_at > now)
			*next = Min(*next, slot.due_at);
		if (log_due_at(slot) > now)
			*next = Min(*next, log_due_at(slot));
	}
	return count;
}

void
forget_agenda(Oid database)
{
	if (table == nullptr)
		return;

	Held held(LW_EXCLUSIVE);
	Slot *slot = slot_of(database, false);

	if (slot != nullptr)
		memset(slot, 0, sizeof(*slot));
}

bool
warm_report(WarmReport *report)
{
	if (table == nullptr)
		return false;

	Held held(LW_SHARED);
	Slot *slot = slot_of(MyDatabaseId, false);

	if (slot == nullptr)
		return false;
	*report = slot->report;
	return true;
}

} /* namespace cache_ext::worker */

extern "C" Datum
cache_ext_warm_report(PG_FUNCTION_ARGS)
{
	using namespace cache_ext;

	worker::WarmReport report = {};
	TupleDesc type;
	Datum values[5] = {};
	bool nulls[5] = {};

	if (get_call_result_type(fcinfo, nullptr, &type) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	(void) worker::warm_report(&report);
	nulls[1] = nulls[2] = nulls[3] = nulls[4] = report.ended_at == 0;
	values[0] = Int32GetDatum(report.interval_s);
	values[1] = TimestampTzGetDatum(report.ended_at);
	values[2] = Int64GetDatum(report.loaded);
	values[3] = Int64GetDatum(report.failed);
	values[4] = CStringGetTextDatum(report.error);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(type), values, nulls));
}
