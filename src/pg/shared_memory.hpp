/*-------------------------------------------------------------------------
 *
 * shared_memory.hpp
 *		The library's areas of the server's shared memory.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "pg/server.hpp"

extern "C" {
#include "storage/lwlock.h"
#include "storage/shmem.h"
}

namespace cache_ext::pg {

/* One owner's part; lives as long as the process. */
struct SharedArea
{
	void (*request)(); /* asks for the bytes it needs */
	void (*attach)();  /* finds them, once they are there and again after a crash */
	SharedArea *next = nullptr;
};

/* From _PG_init.  Has the two called when the library is preloaded, does nothing otherwise. */
void add_shared_area(SharedArea *area);

/*
 * The bytes of that name, which make(area) fills in when they are new.  Without
 * preloading the slack of shared memory has room for a small area, at any time.
 */
template <typename Area, typename Make>
Area *
attach_shared(const char *name, Size size, Make make)
{
	bool found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);

	auto *area = static_cast<Area *>(ShmemInitStruct(name, size, &found));

	if (!found)
		make(area);
	LWLockRelease(AddinShmemInitLock);
	return area;
}

} /* namespace cache_ext::pg */
