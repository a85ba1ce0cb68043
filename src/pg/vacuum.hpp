/*-------------------------------------------------------------------------
 *
 * vacuum.hpp
 *		Vacuuming an internal table from a background worker.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "pg/server.hpp"

namespace cache_ext::pg {

/*
 * Outside of any transaction; runs its own.  A table that somebody has locked
 * is left for the next time.
 */
void vacuum_internal_table(const char *name);

/*
 * The same, into a new file without holes.  Keeps everybody away for as long as
 * copying what is left takes; false when it has not got the table to itself
 * within so many milliseconds, during which nobody new gets at it either.
 */
bool rewrite_internal_table(const char *name, int lock_ms);

} /* namespace cache_ext::pg */
