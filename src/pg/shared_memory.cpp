/*-------------------------------------------------------------------------
 *
 * shared_memory.cpp
 *		One pair of hooks for all areas; see shared_memory.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "pg/shared_memory.hpp"

extern "C" {
#include "storage/ipc.h"
}

namespace cache_ext::pg {

static SharedArea *areas = nullptr;
static shmem_request_hook_type previous_request = nullptr;
static shmem_startup_hook_type previous_startup = nullptr;

extern "C" {
static void
cache_ext_request_areas(void)
{
	if (previous_request != nullptr)
		previous_request();
	for (SharedArea *area = areas; area != nullptr; area = area->next)
		area->request();
}

static void
cache_ext_attach_areas(void)
{
	if (previous_startup != nullptr)
		previous_startup();
	for (SharedArea *area = areas; area != nullptr; area = area->next)
		area->attach();
}
}

void
add_shared_area(SharedArea *area)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	if (areas == nullptr)
	{
		previous_request = shmem_request_hook;
		shmem_request_hook = cache_ext_request_areas;
		previous_startup = shmem_startup_hook;
		shmem_startup_hook = cache_ext_attach_areas;
	}
	area->next = areas;
	areas = area;
}

} /* namespace cache_ext::pg */
