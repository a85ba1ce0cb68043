/*-------------------------------------------------------------------------
 *
 * tables.hpp
 *		The rows of the outbox and its companions, as writers and the delivery
 *		use them; outbox.hpp is what others may ask.
 *
 * Plain data, may raise, in the caller's transaction.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "core/invalidation/bucket.hpp"
#include "ext/invalidation/outbox.hpp"

extern "C" {
#include "storage/itemptr.h"
#include "storage/lockdefs.h"
#include "utils/relcache.h"
#include "utils/timestamp.h"
}

namespace cache_ext::invalidation {

/* A table of ours, by a name that is a literal; raises when it is not there. */
Relation open_table(const char *name, LOCKMODE lock);

bytea *make_bytea(const void *bytes, size_t length);

/* Columns as the extension's script declares them. */
namespace outbox_column {
enum
{
	buckets,
	items,
	at,
	payload,
	count
};
}

/* The file is cut short when it is larger; readers look at not much more. */
constexpr uint32 kPagesOfSmallOutbox = 64;

/* The buckets of a row that is about everything. */
constexpr uint16 kEveryBucket[] = {kBucketOfAll};

/* Rows to be queued in the current transaction. */
struct NewRow
{
	const uint16 *buckets; /* that entries are not to be trusted for; each once */
	int bucket_count;
	int32 items;
	const char *payload;
	size_t length;
	TimestampTz at; /* when it was first queued; 0: now */
};
void insert_outbox_rows(const NewRow *rows, int count);

/*
 * Note that this transaction commits changes that no Redis is told: closes the
 * Redis tier until the worker has raised the epoch.
 */
void insert_lapse();

/*
 * The worker's side: were there such transactions?  False also while one that
 * holds the lapse lock has not ended; true takes the note away and keeps the
 * lock to the end of the transaction.
 */
bool take_lapse();

/* A row that the snapshot sees. */
struct OutboxRow
{
	ItemPointerData tid;
	int32 items; /* none: the note of a lapse */
	TimestampTz at;
	TransactionId xmin; /* possibly a frozen one */
	const char *payload;
	size_t length;
};

/*
 * Every row that a fresh snapshot sees from that page of the file on, until take
 * returns false; payloads live in CurrentMemoryContext.  Returns the number of the table's file:
 * rows keep their places while it is the same.
 */
using TakeRow = bool (*)(const OutboxRow &row, void *arg);
Oid read_outbox(uint32 from_page, TakeRow take, void *arg);

/* Raises when the table has got another file since the rows were read. */
void delete_outbox_rows(Oid file, const ItemPointerData *tids, int count);

/* Any row, visible or of a transaction that has not ended (a prepared one, perhaps)? */
bool outbox_occupied();

/* Pages of its file, used or not. */
uint32 outbox_pages();

void insert_retained(const Digest &incarnation, int32 items, const char *payload, size_t length);

/* Put everything retained back into the outbox, since Redis may have forgotten it. */
void requeue_retained();
int64 purge_retained(TimestampTz before); /* returns how many went */
bool any_retained();
bool retained_removes(std::string_view key, Snapshot snapshot);

/* Items to be delivered once more, and when. */
void insert_repeat(TimestampTz due, int32 items, const char *payload, size_t length);

/* Puts what is due into the outbox; returns when the next will be, 0: there is none. */
TimestampTz queue_due_repeats(TimestampTz now);

void write_redis_state(const RedisState &state);

/* Counters and what must survive the worker. */
struct DeliveryState
{
	int64 seq;
	bool clean; /* seq is the last one sent, and no delivery was cut short */
	int64 delivered;
	int64 retried;
	int64 collapsed;
	TimestampTz last_delivery; /* 0: never */
};
DeliveryState read_delivery();
void write_delivery(const DeliveryState &state);
void write_delivery_error(const char *message, int64 retried);

} /* namespace cache_ext::invalidation */
