/*-------------------------------------------------------------------------
 *
 * worker_table.cpp
 *		Shared memory of the workers; see worker_table.hpp for the locking.
 *
 * A worker that goes first says so (state none) and then looks for work and
 * expectations once more; a backend first counts itself in and then looks at
 * the state.  Both sides' steps are full barriers, so at least one of them sees
 * the other.
 *
 *-------------------------------------------------------------------------
 */
#include "pg/worker_table.hpp"

#include "pg/shared_memory.hpp"

extern "C" {
#include "port/atomics.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"
}

namespace cache_ext::pg {

namespace {

constexpr TimestampTz kStartupLimitUs = 5 * USECS_PER_SEC;
constexpr TimestampTz kPauseAfterFailureUs = USECS_PER_SEC;
constexpr TimestampTz kPauseAfterLeavingUs = 5 * USECS_PER_SEC;

enum State : uint32
{
	kNone,
	kStarting,
	kRunning
};

} /* namespace */

struct WorkerSlot
{
	pg_atomic_uint32 database; /* changed under the lock */
	pg_atomic_uint32 state;
	pg_atomic_uint32 pid;
	pg_atomic_uint32 work;     /* kinds of committed work that wait */
	pg_atomic_uint32 expected; /* transactions that will commit something */
	pg_atomic_uint32 leave;    /* asked to go */
	pg_atomic_uint32 read;     /* partial rows have been */
	pg_atomic_uint64 latch;    /* the worker's latch, 0: none */
	pg_atomic_uint64 since;    /* when state became kStarting */
	pg_atomic_uint64 not_before;

	/* Confirmations: numbers only grow, also from one database of the slot to the next. */
	pg_atomic_uint64 last_number;
	pg_atomic_uint64 confirmed_names;
	pg_atomic_uint64 confirmed_all;
	pg_atomic_uint64 failing_since;
	pg_atomic_uint32 waiting;
	ConditionVariable confirmation;
};

namespace {

struct WorkerTable
{
	LWLock lock;
	int tranche;
	pg_atomic_uint64 lapses_taken;
	WorkerSlot slots[kWorkerSlots];
};

WorkerTable *table = nullptr;
WorkerSlot *mine = nullptr;

void
attach_table()
{
	auto make = [](WorkerTable *shared) {
		shared->tranche = LWLockNewTrancheId();
		LWLockInitialize(&shared->lock, shared->tranche);
		pg_atomic_init_u64(&shared->lapses_taken, 0);
		for (WorkerSlot &slot : shared->slots)
		{
			pg_atomic_init_u32(&slot.database, InvalidOid);
			pg_atomic_init_u32(&slot.state, kNone);
			pg_atomic_init_u32(&slot.pid, 0);
			pg_atomic_init_u32(&slot.work, 0);
			pg_atomic_init_u32(&slot.expected, 0);
			pg_atomic_init_u32(&slot.leave, 0);
			pg_atomic_init_u32(&slot.read, 0);
			pg_atomic_init_u64(&slot.latch, 0);
			pg_atomic_init_u64(&slot.since, 0);
			pg_atomic_init_u64(&slot.not_before, 0);
			pg_atomic_init_u64(&slot.last_number, 0);
			pg_atomic_init_u64(&slot.confirmed_names, 0);
			pg_atomic_init_u64(&slot.confirmed_all, 0);
			pg_atomic_init_u64(&slot.failing_since, 0);
			pg_atomic_init_u32(&slot.waiting, 0);
			ConditionVariableInit(&slot.confirmation);
		}
	};

	table = attach_shared<WorkerTable>("cache_ext workers", sizeof(WorkerTable), make);
	LWLockRegisterTranche(table->tranche, "cache_ext workers");
}

void
request_table()
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(WorkerTable)));
}

SharedArea area = {request_table, attach_table};

/* Not preloaded, each process finds it at first use. */
void
use_table()
{
	if (table == nullptr)
		attach_table();
}

uint64
now()
{
	return static_cast<uint64>(GetCurrentTimestamp());
}

WorkerSlot *
find_slot(Oid database)
{
	for (WorkerSlot &slot : table->slots)
		if (pg_atomic_read_u32(&slot.database) == database)
			return &slot;
	return nullptr;
}

bool
unused(WorkerSlot &slot)
{
	return pg_atomic_read_u32(&slot.state) == kNone && pg_atomic_read_u32(&slot.expected) == 0 &&
	       pg_atomic_read_u32(&slot.work) == 0 && pg_atomic_read_u32(&slot.waiting) == 0;
}

/* Under the lock: a slot for the database, from one that has nothing to do when none is free. */
WorkerSlot *
take_slot(Oid database)
{
	for (WorkerSlot &slot : table->slots)
	{
		Oid owner = pg_atomic_read_u32(&slot.database);

		if (OidIsValid(owner))
			continue;
		pg_atomic_write_u32(&slot.database, database);
		return &slot;
	}
	for (WorkerSlot &slot : table->slots)
	{
		if (!unused(slot))
			continue;

		/* Its database's backends notice by the number; they count themselves in before they look.
		 */
		Oid owner = pg_atomic_exchange_u32(&slot.database, InvalidOid);

		if (!unused(slot))
		{
			pg_atomic_exchange_u32(&slot.database, owner);
			continue;
		}
		pg_atomic_write_u64(&slot.not_before, 0);
		pg_atomic_write_u32(&slot.leave, 0);
		pg_atomic_exchange_u32(&slot.database, database);
		return &slot;
	}
	return nullptr;
}

} /* namespace */

void
register_worker_table()
{
	add_shared_area(&area);
}

WorkerSlot *
my_worker_slot()
{
	if (mine != nullptr && pg_atomic_read_u32(&mine->database) == MyDatabaseId)
		return mine;

	use_table();
	LWLockAcquire(&table->lock, LW_EXCLUSIVE);
	mine = find_slot(MyDatabaseId);
	if (mine == nullptr)
		mine = take_slot(MyDatabaseId);
	LWLockRelease(&table->lock);
	return mine;
}

bool
expect_worker(WorkerSlot *slot)
{
	uint32 state;

	pg_atomic_fetch_add_u32(&slot->expected, 1);
	state = pg_atomic_read_u32(&slot->state);
	if (state == kRunning)
		return false;

	uint64 time = now();

	if (state == kStarting && time < pg_atomic_read_u64(&slot->since) + kStartupLimitUs)
		return false;
	if (time < pg_atomic_read_u64(&slot->not_before))
		return false;

	/* One of those who see this starts it. */
	if (!pg_atomic_compare_exchange_u32(&slot->state, &state, kStarting))
		return false;
	pg_atomic_write_u64(&slot->since, time);
	return true;
}

void
worker_started(WorkerSlot *slot, bool success) noexcept
{
	uint32 state = kStarting;

	if (success)
		return;
	pg_atomic_write_u64(&slot->not_before, now() + kPauseAfterFailureUs);
	pg_atomic_compare_exchange_u32(&slot->state, &state, kNone);
}

/*
 * The latch is that of a process slot: should the worker have gone this instant,
 * some other process wakes up for nothing.
 */
static void
set_worker_latch(WorkerSlot *slot) noexcept
{
	auto *latch =
	    reinterpret_cast<Latch *>(static_cast<uintptr_t>(pg_atomic_read_u64(&slot->latch)));

	if (latch != nullptr)
		SetLatch(latch);
}

/* Work of a kind that already waits needs no second knock. */
void
mark_work(WorkerSlot *slot, uint32 work) noexcept
{
	uint32 before = pg_atomic_fetch_or_u32(&slot->work, work);

	if ((before & work) != work)
		set_worker_latch(slot);
}

void
settle_expectation(WorkerSlot *slot, uint32 work) noexcept
{
	if (work != 0)
		mark_work(slot, work);
	pg_atomic_fetch_sub_u32(&slot->expected, 1);
}

void
mark_work_of(Oid database, uint32 work)
{
	attach_table();
	LWLockAcquire(&table->lock, LW_EXCLUSIVE);

	WorkerSlot *slot = find_slot(database);

	if (slot == nullptr)
		slot = take_slot(database);
	if (slot != nullptr)
		mark_work(slot, work);
	LWLockRelease(&table->lock);
}

void
ask_worker_to_leave(Oid database)
{
	use_table();
	LWLockAcquire(&table->lock, LW_SHARED);

	WorkerSlot *slot = find_slot(database);

	if (slot != nullptr)
	{
		pg_atomic_write_u64(&slot->not_before, now() + kPauseAfterLeavingUs);
		pg_atomic_exchange_u32(&slot->leave, 1);
		set_worker_latch(slot);
	}
	LWLockRelease(&table->lock);
}

bool
claim_worker_slot(WorkerSlot *slot)
{
	uint32 pid = 0;

	if (!pg_atomic_compare_exchange_u32(&slot->pid, &pid, static_cast<uint32>(MyProcPid)))
		return false;
	pg_atomic_write_u32(&slot->leave, 0);
	pg_atomic_write_u64(&slot->latch, static_cast<uint64>(reinterpret_cast<uintptr_t>(MyLatch)));
	pg_atomic_exchange_u32(&slot->state, kRunning);
	return true;
}

void
release_worker_slot(WorkerSlot *slot) noexcept
{
	uint32 state = kRunning;

	if (pg_atomic_read_u32(&slot->pid) != static_cast<uint32>(MyProcPid))
		return;
	pg_atomic_write_u64(&slot->latch, 0);
	pg_atomic_compare_exchange_u32(&slot->state, &state, kNone);
	pg_atomic_exchange_u32(&slot->pid, 0);
}

bool
release_idle_slot(WorkerSlot *slot)
{
	uint32 state = kNone;

	pg_atomic_exchange_u32(&slot->state, kNone);
	if (pg_atomic_read_u32(&slot->work) == 0 && pg_atomic_read_u32(&slot->expected) == 0)
		return true;

	/* Stay, unless somebody has begun to start another: then that one will do it. */
	return !pg_atomic_compare_exchange_u32(&slot->state, &state, kRunning);
}

uint32
take_work(WorkerSlot *slot, uint32 mask) noexcept
{
	return pg_atomic_fetch_and_u32(&slot->work, ~mask) & mask;
}

uint32
waiting_work(WorkerSlot *slot) noexcept
{
	return pg_atomic_read_u32(&slot->work);
}

bool
asked_to_leave(WorkerSlot *slot) noexcept
{
	return pg_atomic_read_u32(&slot->leave) != 0;
}

bool
asked_to_keep_away(WorkerSlot *slot) noexcept
{
	return asked_to_leave(slot) && now() < pg_atomic_read_u64(&slot->not_before);
}

int
worker_pid(WorkerSlot *slot) noexcept
{
	return static_cast<int>(pg_atomic_read_u32(&slot->pid));
}

int
databases_without_worker(Oid *databases, int limit)
{
	int count = 0;

	use_table();
	LWLockAcquire(&table->lock, LW_SHARED);
	for (WorkerSlot &slot : table->slots)
	{
		Oid database = pg_atomic_read_u32(&slot.database);

		if (OidIsValid(database) && pg_atomic_read_u32(&slot.work) != 0 &&
		    pg_atomic_read_u32(&slot.state) == kNone &&
		    now() >= pg_atomic_read_u64(&slot.not_before) && count < limit)
			databases[count++] = database;
	}
	LWLockRelease(&table->lock);
	return count;
}

void
forget_database(Oid database)
{
	LWLockAcquire(&table->lock, LW_EXCLUSIVE);

	WorkerSlot *slot = find_slot(database);

	if (slot != nullptr && pg_atomic_read_u32(&slot->state) == kNone)
	{
		pg_atomic_write_u32(&slot->work, 0);
		pg_atomic_exchange_u32(&slot->database, InvalidOid);
	}
	LWLockRelease(&table->lock);
}

void
note_reader(WorkerSlot *slot) noexcept
{
	if (pg_atomic_read_u32(&slot->read) == 0)
		pg_atomic_write_u32(&slot->read, 1);
}

bool
take_readers(WorkerSlot *slot) noexcept
{
	return pg_atomic_read_u32(&slot->read) != 0 && pg_atomic_exchange_u32(&slot->read, 0) != 0;
}

uint64
take_number(WorkerSlot *slot) noexcept
{
	pg_atomic_fetch_add_u32(&slot->waiting, 1);
	return pg_atomic_fetch_add_u64(&slot->last_number, 1) + 1;
}

void
leave_wait(WorkerSlot *slot) noexcept
{
	pg_atomic_fetch_sub_u32(&slot->waiting, 1);
}

Confirmed
confirmed_numbers(WorkerSlot *slot) noexcept
{
	return {pg_atomic_read_u64(&slot->confirmed_names), pg_atomic_read_u64(&slot->confirmed_all)};
}

ConditionVariable *
confirmation(WorkerSlot *slot) noexcept
{
	return &slot->confirmation;
}

TimestampTz
failing_since(WorkerSlot *slot) noexcept
{
	return static_cast<TimestampTz>(pg_atomic_read_u64(&slot->failing_since));
}

uint64
last_number(WorkerSlot *slot) noexcept
{
	uint64 number = pg_atomic_read_u64(&slot->last_number);

	pg_memory_barrier(); /* the snapshot that follows is later */
	return number;
}

static void
raise_number(pg_atomic_uint64 *place, uint64 number) noexcept
{
	if (pg_atomic_read_u64(place) < number)
		pg_atomic_write_u64(place, number);
}

void
confirm_numbers(WorkerSlot *slot, Confirmed numbers) noexcept
{
	raise_number(&slot->confirmed_names, numbers.names);
	raise_number(&slot->confirmed_all, numbers.all);
	pg_memory_barrier();
	if (somebody_waits(slot))
		ConditionVariableBroadcast(&slot->confirmation);
}

bool
somebody_waits(WorkerSlot *slot) noexcept
{
	return pg_atomic_read_u32(&slot->waiting) != 0;
}

void
note_failing(WorkerSlot *slot, bool failing) noexcept
{
	if (!failing)
		pg_atomic_write_u64(&slot->failing_since, 0);
	else if (pg_atomic_read_u64(&slot->failing_since) == 0)
		pg_atomic_write_u64(&slot->failing_since, now());
}

bool
lapses_taken(uint64 *count) noexcept
{
	if (table == nullptr)
		return false;
	*count = pg_atomic_read_u64(&table->lapses_taken);
	return true;
}

void
note_lapse_taken() noexcept
{
	if (table != nullptr)
		pg_atomic_fetch_add_u64(&table->lapses_taken, 1);
}

} /* namespace cache_ext::pg */
