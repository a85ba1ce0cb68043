/*-------------------------------------------------------------------------
 *
 * delivery.hpp
 *		From the outbox to Redis, one batch at a time.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "pg/server.hpp"

namespace cache_ext::invalidation {

/* What the worker should do next about the outbox. */
struct DeliveryTurn
{
	int wait_ms;   /* call again after this long */
	bool occupied; /* undelivered rows, or transactions that may still leave some */
	bool watching; /* Redis could forget what was delivered: someone has to notice */
	bool hold;     /* wait that long even if more is committed meanwhile */
};

/*
 * Deliver one batch.  Begins and ends its own transactions; outside of any.  A
 * failure of Redis is not raised: the rows stay, and wait_ms says how long to
 * leave it alone.
 */
DeliveryTurn deliver_batch();

/* Before the worker leaves of its own accord: all that was sent has been written down. */
void finish_delivery();

/* Vacuum the outbox when enough rows have gone: each delivery reads all of it. */
void vacuum_outbox();

} /* namespace cache_ext::invalidation */
