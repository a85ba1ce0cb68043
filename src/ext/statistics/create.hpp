/*-------------------------------------------------------------------------
 *
 * create.hpp
 *		What creating a statistic and taking up a restored one have in common.
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

/* The table of a part. */
void create_part(const Definition *definition, int32 statistic, int part);

/*
 * Dropping a source or a used column needs CASCADE (through the query's view)
 * and then reaches the user's view through this dependency, which a dump does
 * not carry.  For the other direction see tie_before_drop() in follow.cpp.
 */
void tie_together(const StatisticRow &row);
bool are_tied(const StatisticRow &row);

} /* namespace cache_ext::statistics */
