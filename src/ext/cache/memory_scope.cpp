/*-------------------------------------------------------------------------
 *
 * memory_scope.cpp
 *		Whose entries of the memory tier this session may see; see memory_scope.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/cache/memory_scope.hpp"

#include "ext/invalidation/tables.hpp"
#include "pg/guard.hpp"
#include "pg/objects.hpp"

extern "C" {
#include "miscadmin.h"
#include "utils/inval.h"
}

namespace cache_ext::cache {

/* The outbox of this installation; remembered until the relation may have changed. */
static Oid installation = InvalidOid;

static void
forget_installation(Datum, Oid relation)
{
	if (!OidIsValid(relation) || relation == installation)
		installation = InvalidOid;
}

uint64
memory_scope()
{
	static bool registered = false;

	if (!OidIsValid(installation))
		pg::call([] {
			if (!registered)
				CacheRegisterRelcacheCallback(forget_installation, 0);
			registered = true;
			installation = pg::internal_table("outbox");
		});
	return static_cast<uint64>(MyDatabaseId) << 32 | installation;
}

} /* namespace cache_ext::cache */
