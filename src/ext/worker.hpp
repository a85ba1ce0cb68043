/*-------------------------------------------------------------------------
 *
 * worker.hpp
 *		Waking the background worker of the current database.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "pg/server.hpp"

namespace cache_ext::worker {

/* Settings aside, all that loading the library has to do for workers. */
void register_worker();

/*
 * The current transaction leaves work behind (partial rows, outbox rows, a
 * statistic to be filled): its commit wakes the worker.  Makes sure now that one
 * runs or will; when none can be started it says so in the log and the work
 * waits for the next occasion.  Cheap after the first call in a transaction.
 */
enum class Work
{
	kPartialRows,
	kOutbox,
	kFilling,
	kSessions
};
void note_committed_changes_soon(Work work = Work::kPartialRows);

/*
 * The commit of this transaction, which leaves outbox rows, returns when Redis
 * has confirmed them (sweeps: patterns among them), or with a warning.
 */
void confirm_commit(bool sweeps);

/* There is committed work: start or wake the worker at once. */
void wake(Work work = Work::kOutbox);

/* Process number of this database's worker, 0 when none runs. */
int running_pid();

} /* namespace cache_ext::worker */
