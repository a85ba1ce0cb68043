/*-------------------------------------------------------------------------
 *
 * update.cpp
 *		What a script of ALTER EXTENSION cache_ext UPDATE calls first.
 *
 * The script may change tables that the worker and other sessions use.  The
 * worker is held off until the script's transaction ends; other sessions, which
 * may have loaded another library, look anew at what they have kept about our
 * objects and at the triggers that they have compiled.
 *
 *-------------------------------------------------------------------------
 */
#include "core/base/version.hpp"
#include "ext/statistics/capture.hpp"
#include "ext/statistics/sources.hpp"
#include "ext/worker.hpp"
#include "pg/guard.hpp"
#include "pg/maintenance_lock.hpp"
#include "pg/objects.hpp"

namespace cache_ext {

static void
begin_update(const char *version)
{
	ListCell *cell;

	if (!pg::runs_own_script())
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		                errmsg("objects of cache_ext can be updated only by ALTER EXTENSION")));
	if (compare_versions(version, library_version()) > 0)
		ereport(ERROR,
		        (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		         errmsg("the library of cache_ext that this session uses is too old"),
		         errdetail("It is of version %s, the objects are to become version %s.",
		                   library_version().data(), version),
		         errhint("Install the library of that version, then reconnect, or restart the "
		                 "server where shared_preload_libraries loads it.")));
	pg::hold_off_maintenance(true);
	pg::judge_objects_anew();
	foreach (cell, statistics::all_sources())
		statistics::forget_compiled(static_cast<statistics::SourceRow *>(lfirst(cell))->relation);
	worker::note_committed_changes_soon(worker::Work::kFilling);
}

extern "C" {

PG_FUNCTION_INFO_V1(cache_ext_begin_update);

Datum
cache_ext_begin_update(PG_FUNCTION_ARGS)
{
	char *version = text_to_cstring(PG_GETARG_TEXT_PP(0));

	pg::guard([&] { begin_update(version); });
	PG_RETURN_VOID();
}
}

} /* namespace cache_ext */
