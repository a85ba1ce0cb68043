/*-------------------------------------------------------------------------
 *
 * query_plans.hpp
 *		Plans of cache entries' queries that the backend keeps.
 *
 * Plain data, may raise; within SPI_connect().
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "core/base/digest.hpp"
#include "ext/cache/query.hpp"

extern "C" {
#include "executor/spi.h"
}

namespace cache_ext::cache {

struct KeptPlan
{
	Digest key; /* of text and types; the text itself is compared as well */
	char *text;
	SPIPlanPtr plan;
	uint64 last_use;
	int users; /* executions under way: such a plan is not dropped */
};

/* The kept plan of the query, or a null pointer when this one is not to be kept. */
KeptPlan *find_or_keep_plan(const QueryCall &call);

/* A plan that ends with SPI_finish(). */
SPIPlanPtr prepare_query(const QueryCall &call);

} /* namespace cache_ext::cache */
