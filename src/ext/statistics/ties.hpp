/*-------------------------------------------------------------------------
 *
 * ties.hpp
 *		Dependencies among the relations of a statistic, which drop them together.
 *
 * Dropping a source or a used column needs CASCADE (through the query's view)
 * and then reaches the user's view through state_<id>, which depends on the
 * query's.  While a command drops things, the other two go with the user's view
 * as well, and silently; at other times that would close a circle that pg_dump
 * has to break by views that are empty for a while.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/catalog.hpp"

extern "C" {
#include "nodes/nodes.h"
}

namespace cache_ext::statistics {

/* For as long as the statistic lives.  Neither a dump nor pg_upgrade carries it. */
void tie_together(const StatisticRow &row);

/*
 * Before a command; concerned: it may drop or alter relations of ours.  Ties
 * what the command names and no other statistic, which somebody else may be
 * dropping.
 */
void tie_before_drop(Node *command, bool concerned);
void untie_after_drop();

} /* namespace cache_ext::statistics */
