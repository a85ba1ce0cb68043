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

} /* namespace cache_ext::statistics */
