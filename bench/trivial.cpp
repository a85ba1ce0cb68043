/*-------------------------------------------------------------------------
 *
 * trivial.cpp
 *		What calling a function in C costs, whatever it does.
 *
 * Functions of cache_get's signature that return a copy of a constant, as long as
 * the values that the bench keeps in the cache.
 *
 *-------------------------------------------------------------------------
 */
#include <cstring>

extern "C" {
#include "postgres.h"

#include "fmgr.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(trivial_100_bytes);
PG_FUNCTION_INFO_V1(trivial_2_kb);
}

namespace {

template <size_t size>
Datum
constant()
{
	/* [{"value":"..."}] */
	auto *value = static_cast<text *>(palloc(VARHDRSZ + size + 14));

	SET_VARSIZE(value, VARHDRSZ + size + 14);
	memset(VARDATA(value), 'x', size + 14);
	return PointerGetDatum(value);
}

} /* namespace */

Datum
trivial_100_bytes(PG_FUNCTION_ARGS)
{
	return constant<100>();
}

Datum
trivial_2_kb(PG_FUNCTION_ARGS)
{
	return constant<2000>();
}
