/*-------------------------------------------------------------------------
 *
 * value_text.hpp
 *		A column's value as the text that stands in names: that of to_jsonb.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "pg/server.hpp"

extern "C" {
#include "fmgr.h"
#include "lib/stringinfo.h"
}

namespace cache_ext::invalidation {

/* How values of a type are written; plain data, lives in the context it was made in. */
struct ValueText
{
	enum class Way
	{
		kInt2,
		kInt4,
		kInt8,
		kText,
		kBoolean,
		kFloat4,
		kFloat8,
		kDateTime,
		kOutput, /* the type's output function, where no setting matters */
		kJsonb   /* whatever to_jsonb() makes of it under pinned settings */
	};

	Way way;
	Oid type;
	FmgrInfo function;
};

void prepare_value_text(ValueText *text, Oid type, MemoryContext context);

/* Appends the text; false when the value is a JSON null, which counts as NULL. */
bool append_value_text(StringInfo out, ValueText *text, Datum value);

} /* namespace cache_ext::invalidation */
