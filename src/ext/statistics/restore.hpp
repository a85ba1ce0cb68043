/*-------------------------------------------------------------------------
 *
 * restore.hpp
 *		Taking up statistics that a dump brought.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/catalog.hpp"

namespace cache_ext::statistics {

/* Statistics whose relations exist without a row in our catalog (List of StatisticRow *). */
List *restored_statistics();

/*
 * Give a restored statistic its catalog rows and tables, unfilled.  Unless the
 * caller insists this happens only when its tables have all their triggers: a
 * restore makes them last.  Returns whether it was taken up.
 */
bool take_up(const StatisticRow &restored, bool insist);

/* The same for tables that only watches look at; returns how many were taken up. */
List *watched_tables_to_take_up(); /* of Oid * */
int take_up_watched_tables();

/* The defining view that belongs to a foreign table of ours; InvalidOid when there is none. */
Oid query_of_state(Oid state);

} /* namespace cache_ext::statistics */
