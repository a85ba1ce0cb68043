/*-------------------------------------------------------------------------
 *
 * worker_table.hpp
 *		Shared memory: which database has a worker, and what it should know.
 *
 * One slot a database.  The table's lightweight lock is held to find, take or
 * give up a slot and to decide that a worker goes; it is a leaf.  Counters and
 * flags are atomics and need no lock, so a commit callback may touch them: it
 * cannot fail, wait or allocate.
 *
 * Once a worker is counted on (expect()), it does not go before the expectation
 * is settled, so no commit can fall between "nothing left to do" and its exit.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "pg/server.hpp"

extern "C" {
#include "storage/condition_variable.h"
#include "utils/timestamp.h"
}

namespace cache_ext::pg {

constexpr int kWorkerSlots = 64;

/* Kinds of committed work, as bits. */
constexpr uint32 kWorkPartialRows = 1;
constexpr uint32 kWorkOutbox = 2;
constexpr uint32 kWorkFilling = 4;
constexpr uint32 kWorkWarming = 8;   /* and settings of the database that have changed */
constexpr uint32 kWorkSessions = 16; /* whose time will come */
constexpr uint32 kAllWork =
    kWorkPartialRows | kWorkOutbox | kWorkFilling | kWorkWarming | kWorkSessions;

struct WorkerSlot;

/* Hooks for shared memory when the library is preloaded; nothing otherwise. */
void register_worker_table();

/* This database's slot, taken at first use; a null pointer when all are in use. */
WorkerSlot *my_worker_slot();

/*
 * A backend's side.  expect() counts the caller in and returns true when a
 * worker has to be started, which the caller then attempts and reports by
 * started().  settle() is the other half, safe in commit and abort callbacks.
 */
bool expect_worker(WorkerSlot *slot);
void worker_started(WorkerSlot *slot, bool success) noexcept;
void settle_expectation(WorkerSlot *slot, uint32 work) noexcept; /* 0: nothing was committed */
void mark_work(WorkerSlot *slot, uint32 work) noexcept;

/* There is work for the worker of any database; the launcher starts it if there is none. */
void mark_work_of(Oid database, uint32 work);

/* Ask the worker of any database to leave, and start none for some seconds. */
void ask_worker_to_leave(Oid database);

/* A worker's side. */
bool claim_worker_slot(WorkerSlot *slot);            /* false: another one has it */
void release_worker_slot(WorkerSlot *slot) noexcept; /* at exit, however it comes */
bool release_idle_slot(WorkerSlot *slot);            /* false: there is work or an expectation */
uint32 take_work(WorkerSlot *slot,
                 uint32 mask) noexcept; /* what was committed since the last call */
uint32 waiting_work(WorkerSlot *slot) noexcept;
bool asked_to_leave(WorkerSlot *slot) noexcept;
bool asked_to_keep_away(WorkerSlot *slot) noexcept; /* by the same, for some seconds more */
int worker_pid(WorkerSlot *slot) noexcept;

/* Readers who have paid for partial rows tell the worker, whom it makes fold more often. */
void note_reader(WorkerSlot *slot) noexcept;
bool take_readers(WorkerSlot *slot) noexcept; /* any since the last call? */

/*
 * How often a worker of any database has taken a note of the lapse away (see
 * outbox.cpp); false when there is no shared memory to ask.
 */
bool lapses_taken(uint64 *count) noexcept;
void note_lapse_taken() noexcept;

/*
 * Confirmations.  A transaction that waits for Redis takes a number once it is
 * visible.  The worker looks which number is the last before it takes the
 * snapshot of a batch; when Redis has confirmed everything that the snapshot
 * saw, all numbers up to that one are confirmed.  Patterns take long to be
 * swept, so they are confirmed apart: `names` is about all else, `all` about
 * both.
 */
struct Confirmed
{
	uint64 names;
	uint64 all;
};
uint64 take_number(WorkerSlot *slot) noexcept; /* and counts the caller in as waiting */
void leave_wait(WorkerSlot *slot) noexcept;
Confirmed confirmed_numbers(WorkerSlot *slot) noexcept;
ConditionVariable *confirmation(WorkerSlot *slot) noexcept;

/* Since when the worker gets nowhere with Redis; 0: it does. */
TimestampTz failing_since(WorkerSlot *slot) noexcept;

/* The worker's side. */
uint64 last_number(WorkerSlot *slot) noexcept;
void confirm_numbers(WorkerSlot *slot, Confirmed numbers) noexcept;
bool somebody_waits(WorkerSlot *slot) noexcept;
void note_failing(WorkerSlot *slot, bool failing) noexcept;

/* Launcher: databases with committed work and no worker; returns how many were written. */
int databases_without_worker(Oid *databases, int limit);
void forget_database(Oid database); /* it is gone */

} /* namespace cache_ext::pg */
