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

/* As whom a loader's query runs, and under which settings; see loaders.hpp. */
struct RunAs
{
	Oid role;
	int count;
	const char *const *names;
	const char *const *values;
};

/* A query with the texts that are bound to $1, $2, ...; plain data. */
struct QueryCall
{
	const char *text;
	int argument_count;
	const char *const *arguments; /* a null pointer is NULL */
	const Oid *types;             /* of the arguments; null: as the query uses them */
	bool allow_volatile;
	bool as_text_rows;   /* an array of arrays of texts, names of the columns first */
	const RunAs *run_as; /* null: as the caller */
	uint64 most_rows;    /* more are refused with 54000; 0: any number */
};

struct QueryAnswer
{
	StringInfoData json; /* an array of objects, "[]" for no rows; palloc'ed */
	uint64 rows;
	bool by_settings; /* the result may depend on the session's own settings */
	bool personal;    /* it depends on more than can be fingerprinted: never store it */
};

/*
 * Run one SELECT under the active snapshot, reading only.  Volatile functions
 * are refused unless allowed; whatever writes is refused with 25006; an argument
 * that is no value of its type with 22P02.  Plain data, may raise: no C++ object
 * with a destructor may live in the caller's frames except behind pg::call().
 */
void run_query(const QueryCall &call, QueryAnswer *answer);

/*
 * What running it would refuse and without running it could be known; the types
 * of its arguments, in the current context.
 */
Oid *check_query(const QueryCall &call, QueryAnswer *answer);

/* The relations that the query reads, as oids in the current context; may raise. */
List *relations_of_query(const QueryCall &call);

} /* namespace cache_ext::cache */
