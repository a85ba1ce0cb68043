/*-------------------------------------------------------------------------
 *
 * agenda.hpp
 *		Shared memory: what workers do at times of their own, and when.
 *
 * Warming, each cache_ext.warm_interval and after a restart, and the line in the
 * log each cache_ext.log_every.  The launcher looks here for databases whose worker
 * has gone although something is due.
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
void register_agenda();

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

/* What the settings are in this database, in seconds; a change makes named keys due. */
void note_intervals(int warm, int log);

/* What is due in this database now, if nobody is warming on this server. */
Warming due_warming();

/* Is anything due, or under way in this database?  Then the worker stays. */
bool warming_waits();

/* What a line in the log tells: counts since the last one. */
struct LogFigures
{
	uint64 memory;
	uint64 redis;
	uint64 queries;
	uint64 nothing; /* neither a tier nor a query had the key */
	uint64 errors;
	uint64 stale;
};

/* Is a line due?  Given the counts of now, returns what has been added since the last time. */
bool log_is_due();
LogFigures take_log_figures(const LogFigures &counted, int *seconds);

/* ---- the warmer's ---- */

/* False: another process is warming, or there is nothing to do any more. */
bool begin_warming(Warming what);

/* Returns whether it went otherwise than the last time, and is worth a line in the log. */
bool end_warming(Warming what, uint32 loaded, uint32 failed, const char *error);

/* ---- the launcher's ---- */

void expect_hottest(Oid database);

/* Databases where something is due; returns how many were written.  *next is when more will be. */
int databases_with_agenda(Oid *databases, int limit, TimestampTz *next);

/* It is gone, or the extension in it. */
void forget_agenda(Oid database);

/* ---- for people ---- */

bool warm_report(WarmReport *report);

} /* namespace cache_ext::worker */
