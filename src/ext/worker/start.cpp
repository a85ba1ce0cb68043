/*-------------------------------------------------------------------------
 *
 * start.cpp
 *		Starting workers.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/worker/start.hpp"

#include "ext/worker.hpp"
#include "pg/worker_table.hpp"

extern "C" {
#include "miscadmin.h"
#include "postmaster/bgworker.h"
}

namespace cache_ext::worker {

bool preloaded = false;
bool is_worker = false;

bool
start_worker(Oid database, bool look_once, BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker = {};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = ObjectIdGetDatum(database);
	worker.bgw_notify_pid = handle != nullptr ? MyProcPid : 0;
	worker.bgw_extra[0] = look_once ? kLookOnce : '\0';
	strlcpy(worker.bgw_library_name, "cache_ext", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "cache_ext_worker_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "cache_ext worker", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "cache_ext worker", sizeof(worker.bgw_type));
	return RegisterDynamicBackgroundWorker(&worker, handle);
}

void
register_worker()
{
	preloaded = process_shared_preload_libraries_in_progress;
	pg::register_worker_table();
	register_session_hooks();
	if (preloaded && !IsBinaryUpgrade)
		register_launcher();
}

} /* namespace cache_ext::worker */
