/*-------------------------------------------------------------------------
 *
 * batch.hpp
 *		One look of the worker at the outbox, in plain memory.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <unordered_set>

#include "ext/invalidation/tables.hpp"
#include "pg/guard.hpp"
#include "pg/maintenance_lock.hpp"

extern "C" {
#include "access/transam.h"
#include "utils/snapmgr.h"
}

namespace cache_ext::invalidation {

/* Bounds of a batch. */
constexpr int kBatchRows = 5000;
constexpr int kBatchItems = 20000;
constexpr size_t kBatchBytes = size_t{4} * 1024 * 1024;

/* In a transaction of its own; the body is plain C. */
template <typename Fn>
void
in_transaction(Fn &&body)
{
	MemoryContext context = CurrentMemoryContext;

	pg::call([&] {
		StartTransactionCommand();
		(void) pg::take_maintenance_lock(pg::Maintenance::kDelivery, true);
		PushActiveSnapshot(GetTransactionSnapshot()); /* for values stored out of line */
		body(context);
		PopActiveSnapshot();
		CommitTransactionCommand();
		MemoryContextSwitchTo(context);
	});
}

/* Rows as read_outbox() gives them, in plain memory. */
struct Taken
{
	OutboxRow *rows = nullptr;
	int count = 0;
	int capacity = 0;
	int items = 0;
	size_t bytes = 0;
	bool cut_short = false;
	int transactions = 0; /* at least so many have left these rows */
	bool lapse = false;
	uint64 last_number = 0; /* commits up to it are visible (worker_table.hpp) */
	Oid file = InvalidOid;
	uint64 insert_lsn = 0;
	RedisState state = {};
	FullTransactionId next_xid = {};
	uint32 from_page = 0;
	const std::unordered_set<uint64> *left_alone = nullptr; /* places of rows not to take */
	bool left_some = false;                                 /* there were such rows */
	int row_limit = kBatchRows;
	int item_limit = kBatchItems;
	size_t byte_limit = kBatchBytes;

	TimestampTz oldest() const; /* when the first of them was queued */
};

/* Reads and forgets its snapshot: none is held while Redis is waited for. */
void read_batch(Taken *taken);

/* With the epoch that it had: next is a number that is still to come. */
uint64 full_xid(TransactionId xid, FullTransactionId next);

/* A row's place in the table's file as one number. */
uint64 place_of(const ItemPointerData &tid);

} /* namespace cache_ext::invalidation */
