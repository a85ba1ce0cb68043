/*-------------------------------------------------------------------------
 *
 * query.hpp
 *		Running the query behind a cache entry.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "pg/server.hpp"

extern "C" {
#include "lib/stringinfo.h"
#include "utils/snapshot.h"
}

namespace cache_ext::cache {

struct QueryAnswer
{
	StringInfoData json; /* an array of objects, "[]" for no rows; palloc'ed */
	bool by_settings;    /* the result may depend on the session's own settings */
	bool personal;       /* it depends on more than can be fingerprinted: never store it */
};

/*
 * Run one SELECT as the current user under the active snapshot, reading only.
 * Volatile functions are refused unless allowed; whatever writes is refused
 * with 25006.  Plain data, may raise: no C++ object with a destructor may live
 * in the caller's frames except behind pg::call().
 */
void run_query(const char *query, bool allow_volatile, QueryAnswer *answer);

} /* namespace cache_ext::cache */
