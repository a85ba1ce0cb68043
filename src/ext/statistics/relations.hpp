/*-------------------------------------------------------------------------
 *
 * relations.hpp
 *		The relations of a statistic: the tables that keep its state, the foreign
 *		table that reads it and the view over that.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/definition.hpp"

namespace cache_ext::statistics {

/*
 * Enter a statistic whose relations exist into the catalog and make its tables
 * and dependencies.  Writers of its sources are held off, and count for it from
 * their next statement on.
 */
void establish(const StatisticRow &row, const Definition *sketch);

/*
 * The foreign table with the columns of the query, and the view of this name
 * over it that users read; notes both in the row.
 */
void create_relations(StatisticRow *row, const char *schema, const char *name);

/* The table of a part. */
void create_part(const Definition *definition, int32 statistic, int part);

} /* namespace cache_ext::statistics */
