/*-------------------------------------------------------------------------
 *
 * start.hpp
 *		Starting workers, and what sessions and workers share.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "pg/server.hpp"

extern "C" {
#include "postmaster/bgworker.h"
#include "utils/timestamp.h"
}

namespace cache_ext::worker {

constexpr int kSweepMs = 1000;         /* look for work nobody told us of */
constexpr int kLogAgainMs = 60 * 1000; /* the same complaint */

/* Leave at once when there is nothing to do; in the worker's bgw_extra. */
constexpr char kLookOnce = 'o';

/* handle, where wanted, is told of the start. */
bool start_process(const char *name, const char *function, Oid database, char note,
                   BackgroundWorkerHandle **handle);
bool start_worker(Oid database, bool look_once, BackgroundWorkerHandle **handle);

/* What users may have set for sessions must not change how a process of ours works. */
void pin_settings(const char *name);

/* Is the library in shared_preload_libraries? */
extern bool preloaded;

/* Is this process a worker itself? */
extern bool is_worker;

void register_session_hooks();
void register_launcher();

inline TimestampTz
in_ms(int64 ms)
{
	return GetCurrentTimestamp() + ms * 1000;
}

} /* namespace cache_ext::worker */
