/*-------------------------------------------------------------------------
 *
 * list.cpp
 *		The rows of session_list: what an administrator may know of sessions.
 *
 * Neither a sid, which would be the session, nor any value out of its data.
 *
 *-------------------------------------------------------------------------
 */
#include <string>
#include <vector>

#include "core/policy/json_text.hpp"
#include "ext/sessions/sessions.hpp"
#include "pg/guard.hpp"

extern "C" {
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"

PG_FUNCTION_INFO_V1(cache_ext_session_list);
}

namespace cache_ext::sessions {

namespace {

constexpr int kColumns = 5; /* of cache_ext_internal.session_list() */

/* Whatever the application has called a member. */
Datum
name_datum(std::string_view name)
{
	bool good =
	    name.find('\0') == std::string_view::npos &&
	    pg_verify_mbstr(GetDatabaseEncoding(), name.data(), static_cast<int>(name.size()), true);

	return PointerGetDatum(
	    good ? cstring_to_text_with_len(name.data(), static_cast<int>(name.size()))
	         : cstring_to_text("?"));
}

Datum
names_datum(std::string_view json)
{
	ArrayBuildState *names = initArrayResult(TEXTOID, CurrentMemoryContext, false);

	pg::guard([&] {
		for (const std::string &name : policy::member_names(json))
		{
			std::string_view view = name;

			pg::call([&] {
				(void) accumArrayResult(names, name_datum(view), false, TEXTOID,
				                        CurrentMemoryContext);
			});
		}
	});
	return makeArrayResult(names, CurrentMemoryContext);
}

/* Each row's data live no longer than it takes to put it away. */
struct Rows
{
	ReturnSetInfo *result;
	MemoryContext row;
};

void
put_row(const Listed &listed, void *arg)
{
	auto *rows = static_cast<Rows *>(arg);
	MemoryContext caller = MemoryContextSwitchTo(rows->row);
	Datum values[kColumns] = {CStringGetTextDatum(listed.session),
	                          CStringGetTextDatum(kept_in_redis() ? "redis" : "table"),
	                          TimestampTzGetDatum(listed.expires_at),
	                          Int64GetDatum(static_cast<int64>(listed.json.size())),
	                          names_datum(listed.json)};
	bool nulls[kColumns] = {false, false, !listed.expires, false, false};

	tuplestore_putvalues(rows->result->setResult, rows->result->setDesc, values, nulls);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(rows->row);
}

} /* namespace */

} /* namespace cache_ext::sessions */

extern "C" Datum
cache_ext_session_list(PG_FUNCTION_ARGS)
{
	using namespace cache_ext::sessions;

	InitMaterializedSRF(fcinfo, 0);

	Rows rows = {
	    reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo),
	    AllocSetContextCreate(CurrentMemoryContext, "cache_ext session", ALLOCSET_DEFAULT_SIZES)};

	if (kept_in_redis())
		list_redis(put_row, &rows);
	else
		list_table(put_row, &rows);
	MemoryContextDelete(rows.row);
	return Datum(0);
}
