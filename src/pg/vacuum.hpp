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
 * is left for the next time.  Cutting the file short takes a lock that stops
 * writers for a moment: ask for it only when there are none.
 */
void vacuum_internal_table(const char *name, bool truncate);

} /* namespace cache_ext::pg */
