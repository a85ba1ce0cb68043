/*-------------------------------------------------------------------------
 *
 * warm_table.hpp
 *		Shared memory: which databases are to be warmed, when, and how it went.
 *
 * One lightweight lock, a leaf, held for a few assignments.  Without preloading
 * there is no table: nothing is due, and nothing is ever begun.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "pg/server.hpp"

extern "C" {
#include "utils/timestamp.h"
}

namespace cache_ext::worker {

/* Hooks for shared memory. */
void register_warm_table();

/* What there is to warm. */
enum class Warming : char
{
	kNothing = '\0',
	kNamed = 'n',  /* what loaders name, each cache_ext.warm_interval */
	kHottest = 'h' /* after a restart, what was asked for most before */
};

/* How the warmings of a database have gone. */
struct WarmReport
{
	TimestampTz ended_at; /* of the last one; 0: none has */
	int interval_s;       /* as the worker has last seen it */
	uint32 loaded;        /* by the last one */
	uint32 failed;        /* of it, when it gave up */
	char error[256];      /* the first of those */
};

/* ---- the worker's side ---- */

/* What the setting is in this database; a change makes named keys due. */
void note_warm_interval(int seconds);

/* What is due in this database now, if nobody is warming on this server. */
Warming due_warming();

/* Is anything due, or under way in this database?  Then the worker stays. */
bool warming_waits();

/* ---- the warmer's ---- */

/* False: another process is warming, or there is nothing to do any more. */
bool begin_warming(Warming what);

/* Returns whether it went otherwise than the last time, and is worth a line in the log. */
bool end_warming(Warming what, uint32 loaded, uint32 failed, const char *error);

/* ---- the launcher's ---- */

void expect_hottest(Oid database);

/* Databases where something is due; returns how many were written.  *next is when more will be. */
int databases_to_warm(Oid *databases, int limit, TimestampTz *next);

void forget_warming(Oid database); /* it is gone */

/* ---- for people ---- */

bool warm_report(WarmReport *report);

} /* namespace cache_ext::worker */
