/*-------------------------------------------------------------------------
 *
 * follow.hpp
 *		Which source a table belongs to, and what becomes of it after a command.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/catalog.hpp"

namespace cache_ext::statistics {

/* The source that a table is, or is a partition or inheritance child of. */
bool source_of(Oid relation, SourceRow *source);

/*
 * After a command on this table (which may have left its source): count the
 * members that came, uncount those that went, and let statistics answer from
 * their tables while triggers are disabled or missing.
 */
void follow(Oid relation);

} /* namespace cache_ext::statistics */
