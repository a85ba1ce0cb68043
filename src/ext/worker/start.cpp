/*-------------------------------------------------------------------------
 *
 * start.cpp
 *		Starting workers.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/worker/start.hpp"

#include "ext/worker.hpp"
#include "ext/worker/agenda.hpp"
#include "pg/worker_table.hpp"

extern "C" {
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/guc.h"
}

namespace cache_ext::worker {

bool preloaded = false;
bool is_worker = false;

bool
start_process(const char *name, const char *function, Oid database, char note,
              BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker = {};

	/* pg_upgrade makes our relations one by one, and fills them in the end. */
	if (IsBinaryUpgrade)
		return false;

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = ObjectIdGetDatum(database);
	worker.bgw_notify_pid = handle != nullptr ? MyProcPid : 0;
	worker.bgw_extra[0] = note;
	strlcpy(worker.bgw_library_name, "cache_ext", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, function, sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, name, sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, name, sizeof(worker.bgw_type));
	return RegisterDynamicBackgroundWorker(&worker, handle);
}

bool
start_worker(Oid database, bool look_once, BackgroundWorkerHandle **handle)
{
	return start_process("cache_ext worker", "cache_ext_worker_main", database,
	                     look_once ? kLookOnce : '\0', handle);
}

void
pin_settings(const char *name)
{
	static const char *const kSettings[][2] = {
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"synchronous_commit", "off"}, /* what a crash loses here is done again */
		{"statement_timeout", "0"},
		{"lock_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
#if PG_VERSION_NUM >= 170000
		{"transaction_timeout", "0"},
#endif
		{"search_path", "pg_catalog, pg_temp"},
	};

	for (auto &setting : kSettings)
		SetConfigOption(setting[0], setting[1], PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("application_name", name, PGC_SUSET, PGC_S_OVERRIDE);
}

void
register_worker()
{
	preloaded = process_shared_preload_libraries_in_progress;
	pg::register_worker_table();
	register_agenda();
	register_session_hooks();
	if (preloaded && !IsBinaryUpgrade)
		register_launcher();
}

} /* namespace cache_ext::worker */
