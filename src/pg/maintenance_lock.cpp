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
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "storage/lock.h"
#include "miscadmin.h"
}

namespace cache_ext::pg {

/*
 * The extension's number.  Asking costs a scan of pg_extension, so it is kept
 * for as long as our schema is the same one: a new extension has a new schema.
 */
static Oid
extension_number()
{
	static Oid schema = InvalidOid;
	static Oid extension = InvalidOid;
	Oid now = get_namespace_oid("cache_ext_internal", true);

	if (!OidIsValid(now) || now != schema || !OidIsValid(extension))
	{
		extension = get_extension_oid("cache_ext", true);
		schema = now;
	}
	return extension;
}

static LOCKTAG
tag_of(Maintenance what)
{
	LOCKTAG tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId, extension_number(),
	                   static_cast<uint16>(what));
	return tag;
}

/* A log's lock has the log's number where the others have the extension's. */
static LOCKTAG
tag_of_log(Oid log)
{
	constexpr uint16 kLog = 4;
	LOCKTAG tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId, log, kLog);
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

void
release_maintenance_lock(Maintenance what)
{
	LOCKTAG tag = tag_of(what);

	(void) LockRelease(&tag, ExclusiveLock, false);
}

bool
keep_fillings_away()
{
	return acquire(Maintenance::kFilling, ShareLock, false);
}

bool
claim_log(Oid log)
{
	LOCKTAG tag = tag_of_log(log);

	return LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
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
	(void) acquire(Maintenance::kFilling, ShareLock, true);
	(void) acquire(Maintenance::kFolding, ShareLock, true);
	if (deliveries_too)
		(void) acquire(Maintenance::kDelivery, ShareLock, true);
}

} /* namespace cache_ext::pg */
