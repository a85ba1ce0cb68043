/*-------------------------------------------------------------------------
 *
 * confirmation.hpp
 *		Waiting until Redis has confirmed a transaction (invalidation = sync).
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "pg/worker_table.hpp"

namespace cache_ext::worker {

void register_confirmation();

/* The current transaction is to wait when it commits; sweeps: also for its patterns. */
void want_confirmation(bool sweeps) noexcept;

/* Commit callback: the transaction is visible now.  Only atomics. */
void number_commit(pg::WorkerSlot *slot) noexcept;

/* The transaction has ended otherwise. */
void forget_confirmation() noexcept;

/* COMMIT PREPARED has made another session's transaction visible: the same, and the wait. */
void number_prepared(pg::WorkerSlot *slot) noexcept;
void await_prepared();

} /* namespace cache_ext::worker */
