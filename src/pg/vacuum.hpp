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

/* How long whoever shortens a table waits for it, with everybody who wants it behind. */
constexpr int kShorteningMs = 20;

enum class Shortened
{
	kNot, /* there was nothing to gain */
	kYes,
	kHeldOff /* somebody has the table */
};

/*
 * Gives back the end of a heap that a vacuum has left empty, so that whoever
 * reads all of it need not pass over that: where that is half of the file, or
 * many pages of it, which are looked at for another kShorteningMs at most.
 */
Shortened cut_internal_table(const char *name);

/*
 * For a table with few rows, which may lie at its end: all of it, and its
 * indexes, into new files.  Keeps everybody away for as long as that takes.
 */
Shortened rewrite_internal_table(const char *name);

} /* namespace cache_ext::pg */
