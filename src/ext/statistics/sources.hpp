/*-------------------------------------------------------------------------
 *
 * sources.hpp
 *		Small tools for commands that the engine issues.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/catalog.hpp"

extern "C" {
#include "storage/lockdefs.h"
}

namespace cache_ext::statistics {

/* Runs a command through SPI with a pinned search_path; names in it are qualified and quoted. */
void run(const char *format, ...) pg_attribute_printf(1, 2);

/*
 * Runs a read-only query that may name internals, under the active snapshot,
 * with the rights of a statistic's owner: names are looked up as the owner of
 * the internals, everything else happens as that role.  SPI must be connected.
 */
void select_as(Oid owner, const char *query);

/* Schema and name, quoted. */
char *qualified_name(Oid relation);

Oid relation_owner(Oid relation);

/* The statistic that a user names; raises 42809 when the relation is none. */
StatisticRow statistic_of(Oid relation);

/* Has a dump brought it, and is it still to be taken up? */
bool find_restored(Oid relation, StatisticRow *row);

/* Make a table of ours a member of the extension, and drop one; a missing one is no error. */
void own_table(Oid table);
void drop_own_table(const char *name);

/* Give a table that belongs to a source its triggers, and note it; raises 0A000 for a second one.
 */
void add_member(const SourceRow &source, Oid member);

bool relation_exists(Oid relation);

/* Lock what may be dropped just now; false, and no lock, when it is gone. */
bool lock_existing(Oid relation, LOCKMODE mode);

/* Is run() at work? */
bool running_own_command();

/*
 * Operators and functions are PostgreSQL's own until restore(), whatever the
 * session's search_path says: for queries that run with rights that the caller
 * has not.  As with AsOwner, an error is put right by the (sub)transaction.
 */
class PinnedSearchPath
{
  public:
	PinnedSearchPath();
	void restore();

  private:
	int level_;
};

/*
 * Acts as another user until restore().  No destructor: an error that leaves
 * by longjmp is put right by the end of the (sub)transaction.
 */
class AsOwner
{
  public:
	explicit AsOwner(Oid owner, int restrictions = 0);
	void restore();

  private:
	Oid user_;
	int security_;
};

} /* namespace cache_ext::statistics */
