/*-------------------------------------------------------------------------
 *
 * objects.hpp
 *		Finding what the extension's scripts have made in this database, if it
 *		is of a version that this library works with.
 *
 * A package brings a new library at once, ALTER EXTENSION UPDATE new objects
 * when somebody runs it, and a session may have loaded the library long ago.  So
 * whoever opens a table of ours asks here first.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "pg/server.hpp"

namespace cache_ext::pg {

/* Once, when the library is loaded. */
void register_objects();

/*
 * The schema of our internals, InvalidOid when the extension is not there.
 * Raises 55000 when library and objects do not fit each other.
 */
Oid internal_schema();

/*
 * A table of ours, InvalidOid when it is not there.  The name is a literal: what
 * is found is kept until the table or the verdict goes, since writers ask at
 * every commit.
 */
Oid internal_table(const char *name);

/* Does nothing stand against opening our tables?  Also true when there are none. */
bool objects_fit();

/* Here now, and in every other session once this transaction has committed. */
void judge_objects_anew();

/* Is a script of ours running, which changes objects of ours? */
bool runs_own_script();

} /* namespace cache_ext::pg */
