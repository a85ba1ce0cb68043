/*-------------------------------------------------------------------------
 *
 * query_traits.hpp
 *		What kind of query it is: may it be cached, and for whom?
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/cache/query.hpp"

extern "C" {
#include "executor/spi.h"
}

namespace cache_ext::cache {

/*
 * Refuses a plan that is not one SELECT, that writes, or that is volatile unless that is
 * allowed; fills in what the answer will depend on.  Plain data, may raise.
 */
void check_plan(SPIPlanPtr plan, bool allow_volatile, QueryAnswer *answer);

} /* namespace cache_ext::cache */
