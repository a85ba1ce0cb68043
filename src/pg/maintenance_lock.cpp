/*-------------------------------------------------------------------------
 *
 * maintenance_lock.cpp
 *		See maintenance_lock.hpp.  The locks belong to the extension's own row in
 *		pg_extension, with sub-object numbers that nothing else uses.
 *
 *-------------------------------------------------------------------------
 */
#include "pg/maintenance_lock.hpp"

extern "C" {
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "storage/lock.h"
#include "miscadmin.h"
}

namespace cache_ext::pg {

static LOCKTAG
tag_of(Maintenance what)
{
	LOCKTAG tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId, get_extension_oid("cache_ext", true),
	                   static_cast<uint16>(what));
	return tag;
}

static bool
acquire(Maintenance what, LOCKMODE mode, bool wait)
{
	LOCKTAG tag = tag_of(what);

	return LockAcquire(&tag, mode, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

bool
take_maintenance_lock(Maintenance what, bool wait)
{
	return acquire(what, ExclusiveLock, wait);
}

bool
holds_off_maintenance()
{
	LOCKTAG tag = tag_of(Maintenance::kFolding);

#if PG_VERSION_NUM >= 170000
	return LockHeldByMe(&tag, ShareLock, true);
#else
	return LockHeldByMe(&tag, ShareLock) || LockHeldByMe(&tag, ExclusiveLock);
#endif
}

void
hold_off_maintenance(bool deliveries_too)
{
	(void) acquire(Maintenance::kFolding, ShareLock, true);
	if (deliveries_too)
		(void) acquire(Maintenance::kDelivery, ShareLock, true);
}

} /* namespace cache_ext::pg */
