/*-------------------------------------------------------------------------
 *
 * child.cpp
 *		A process that does for a database's worker what takes long; see child.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/worker/child.hpp"

extern "C" {
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
}

namespace cache_ext::worker {

bool
Child::running()
{
	pid_t pid;

	if (handle_ == nullptr)
		return false;

	BgwHandleStatus status = GetBackgroundWorkerPid(handle_, &pid);
	if (status == BGWH_STARTED || status == BGWH_NOT_YET_STARTED)
		return true;
	pfree(handle_);
	handle_ = nullptr;
	return false;
}

bool
Child::start(char note)
{
	MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);
	bool started = start_process(name_, function_, MyDatabaseId, note, &handle_);

	MemoryContextSwitchTo(caller);
	if (!started)
		handle_ = nullptr;
	return started;
}

void
Child::stop()
{
	if (!running())
		return;
	TerminateBackgroundWorker(handle_);
	if (WaitForBackgroundWorkerShutdown(handle_) == BGWH_POSTMASTER_DIED)
		proc_exit(1);
	(void) running();
}

} /* namespace cache_ext::worker */
