/*-------------------------------------------------------------------------
 *
 * init.cpp
 *		Loading the library: settings and hooks.  Opens nothing, reads no clock;
 *		the postmaster's state is inherited by every backend.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/cache/counters.hpp"
#include "ext/cache/load_lock.hpp"
#include "ext/cache/memory.hpp"
#include "ext/invalidation/items.hpp"
#include "ext/limits/limits.hpp"
#include "ext/statistics/capture.hpp"
#include "ext/worker.hpp"
#include "pg/objects.hpp"
#include "pg/redis_health.hpp"
#include "pg/server.hpp"
#include "pg/settings.hpp"

extern "C" {
PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	cache_ext::pg::define_settings();
	cache_ext::pg::register_objects();
	cache_ext::pg::register_redis_health();
	cache_ext::statistics::register_capture_callbacks();
	cache_ext::invalidation::register_item_callbacks();
	cache_ext::cache::register_memory();
	cache_ext::cache::register_load_marks();
	cache_ext::cache::register_counters();
	cache_ext::limits::register_limits();
	cache_ext::worker::register_worker();
}
}
