/*-------------------------------------------------------------------------
 *
 * capture.hpp
 *		The triggers that watch a source, shared by statistics and watches.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "pg/server.hpp"

namespace cache_ext::statistics {

void register_capture_callbacks();

/*
 * Make relation (an ordinary or partitioned table, root of its tree) a source:
 * gives it and its partitions the capture triggers and a log.  Does nothing
 * when it has them.  The caller must own TRIGGER privilege (checked here).
 * Returns the source's number.
 */
int32 ensure_source(Oid relation);

/* Take the triggers and the log away again unless a statistic or a watch still needs them. */
void release_source(Oid relation);

/* Make every backend compile the captures of this relation anew at its next statement. */
void forget_compiled(Oid relation);

} /* namespace cache_ext::statistics */
