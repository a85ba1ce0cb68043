/*-------------------------------------------------------------------------
 *
 * verbs.hpp
 *		What a worker does, one verb at a time.
 *
 * Each verb runs in transactions of its own, is safe to repeat after a crash, and
 * fails alone: its error is logged once, its transaction rolled back and the verb
 * left alone for a while.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/invalidation/delivery.hpp"
#include "ext/sessions/sessions.hpp"
#include "ext/statistics/statistics.hpp"
#include "pg/server.hpp"

extern "C" {
#include "utils/timestamp.h"
}

namespace cache_ext::worker {

/* What the verbs tell the loop. */
struct Turn
{
	int64 folded = 0;
	invalidation::DeliveryTurn delivery = {};
	statistics::FillTurn filling = statistics::FillTurn::kNothing;
	bool filling_waits = false;
	int64 passed = 0;       /* partial rows folded since the last vacuum */
	bool left_over = false; /* something could not be vacuumed yet */
	bool installed = true;
	sessions::ExpiryTurn expiry = {true, false, 1000};
};
extern Turn turn;

/* A verb and how it fares. */
struct Verb
{
	const char *activity; /* for pg_stat_activity */
	void (*run)();
	int pause_ms;           /* 0: the last run was well */
	TimestampTz not_before; /* because it failed */
	uint32 logged;          /* hash of the error that was logged last */
	TimestampTz logged_at;
};

/* Run the verb unless it has failed a short while ago.  Resets the context afterwards. */
void attempt(Verb *verb, MemoryContext context);

void run_housekeeping(); /* settings, and whether the extension is still there */
void run_fold();
void run_look_for_filling();
void run_fill();
void run_delivery();
void run_vacuum();
void run_outbox_vacuum();
void run_expiry();
void run_log_figures();

} /* namespace cache_ext::worker */
