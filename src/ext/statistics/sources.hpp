/*-------------------------------------------------------------------------
 *
 * sources.hpp
 *		Small tools for commands that the engine issues.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/catalog.hpp"

namespace cache_ext::statistics {

/* Runs a command through SPI; identifiers in it are already quoted. */
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

/* Names of the triggers that a table lacks or that do not fire as they should; NULL when none. */
char *trigger_trouble(Oid source);

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
