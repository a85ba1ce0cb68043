/*-------------------------------------------------------------------------
 *
 * json_rows.hpp
 *		Rows from the executor into JSON text; plain data, may raise.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/cache/query.hpp"
#include "pg/server.hpp"

extern "C" {
#include "tcop/dest.h"
}

namespace cache_ext::cache {

struct JsonReceiver
{
	DestReceiver base;
	StringInfo json;
	TupleDesc row_type;
	bool as_text_rows;
	MemoryContext row_context;
	uint64 rows;
	uint64 most_rows; /* 0: any number */
};

/* A receiver of the call's rows, which appends them to the text as elements of an array. */
void prepare_receiver(JsonReceiver *receiver, const QueryCall &call, StringInfo json);

} /* namespace cache_ext::cache */
