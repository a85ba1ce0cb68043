/*-------------------------------------------------------------------------
 *
 * batch.cpp
 *		Reading the outbox, and making sure that what it says is on disk.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/batch.hpp"

#include "pg/worker_table.hpp"

extern "C" {
#include "access/xlog.h"
}

namespace cache_ext::invalidation {

static bool
take_row(const OutboxRow &row, void *arg)
{
	auto *taken = static_cast<Taken *>(arg);

	if (row.items == 0)
	{
		taken->lapse = true;
		return true;
	}
	if (taken->left_alone != nullptr && taken->left_alone->count(place_of(row.tid)) != 0)
	{
		taken->left_some = true;
		return true;
	}
	if (taken->count >= taken->row_limit || taken->items >= taken->item_limit ||
	    taken->bytes >= taken->byte_limit)
	{
		taken->cut_short = true;
		return false;
	}
	if (taken->count == taken->capacity)
	{
		taken->capacity = Max(64, taken->capacity * 2);
		taken->rows = taken->rows == nullptr
		                  ? static_cast<OutboxRow *>(palloc(taken->capacity * sizeof(OutboxRow)))
		                  : static_cast<OutboxRow *>(
		                        repalloc(taken->rows, taken->capacity * sizeof(OutboxRow)));
	}
	taken->rows[taken->count++] = row;
	taken->items += row.items;
	taken->bytes += row.length;
	return true;
}

/*
 * What was committed asynchronously must be on disk before anybody is told:
 * after a crash the old value would be the true one, and its removal a rumour.
 */
static void
flush_commits(Taken *taken)
{
	XLogRecPtr limit = InvalidXLogRecPtr;
	TransactionId last = InvalidTransactionId;

	for (int i = 0; i < taken->count; ++i)
	{
		TransactionId xid = taken->rows[i].xmin;

		if (xid == last || !TransactionIdIsNormal(xid))
			continue;
		last = xid;
		++taken->transactions;
		limit = Max(limit, TransactionIdGetCommitLSN(xid));
	}
	if (!XLogRecPtrIsInvalid(limit))
		XLogFlush(limit);
}

TimestampTz
Taken::oldest() const
{
	TimestampTz oldest = 0;

	for (int i = 0; i < count; ++i)
		oldest = oldest == 0 ? rows[i].at : Min(oldest, rows[i].at);
	return oldest;
}

void
read_batch(Taken *taken)
{
	in_transaction([taken](MemoryContext context) {
		pg::WorkerSlot *slot = pg::my_worker_slot();

		MemoryContextSwitchTo(context);
		if (slot != nullptr)
			taken->last_number = pg::last_number(slot);
		taken->file = read_outbox(taken->from_page, take_row, taken);
		taken->insert_lsn = GetXLogInsertRecPtr();

		Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());

		taken->state = read_redis_state(snapshot);
		UnregisterSnapshot(snapshot);
		taken->next_xid = ReadNextFullTransactionId();
		flush_commits(taken);
	});
}

uint64
full_xid(TransactionId xid, FullTransactionId next)
{
	if (!TransactionIdIsNormal(xid))
		return 0;

	uint32 epoch = EpochFromFullTransactionId(next);

	if (xid > XidFromFullTransactionId(next))
		--epoch;
	return static_cast<uint64>(epoch) << 32 | xid;
}

uint64
place_of(const ItemPointerData &tid)
{
	return static_cast<uint64>(ItemPointerGetBlockNumberNoCheck(&tid)) << 16 |
	       ItemPointerGetOffsetNumberNoCheck(&tid);
}

} /* namespace cache_ext::invalidation */
