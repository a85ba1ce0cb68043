/*-------------------------------------------------------------------------
 *
 * maintenance_lock.hpp
 *		Keeps the worker and commands that drop its tables out of each other's way.
 *
 * A DROP takes exclusive locks on our tables in an order of its own; a fold or
 * a delivery holds some of them already.  So each of these takes a lock first,
 * before any table: maintenance exclusively, commands in a mode that they share.
 * Whoever takes several takes them in the order filling, folding, delivery.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "pg/server.hpp"

extern "C" {
#include "storage/lockdefs.h"
}

namespace cache_ext::pg {

enum class Maintenance : uint16
{
	kFolding = 1,
	kDelivery = 2,
	kFilling = 3
};

/* Until the end of the transaction.  False when it is not free and wait is false. */
bool take_maintenance_lock(Maintenance what, bool wait);

/* Before its end.  What the lock protected must not be touched any more. */
void release_maintenance_lock(Maintenance what);

/* No filling begins before this transaction ends; false when one is under way. */
bool keep_fillings_away();

/* A log for this transaction alone, among folds and fillings; false when somebody else has it. */
bool claim_log(Oid log);

/*
 * What commands that may drop our tables call before they lock anything.
 * Deliveries are held off only by those that could drop the outbox: all of a
 * database's invalidations would wait for the command's transaction to end.
 */
void hold_off_maintenance(bool deliveries_too = false);

/* Does this transaction keep folds, and with them fillings, away? */
bool holds_off_maintenance();

} /* namespace cache_ext::pg */
