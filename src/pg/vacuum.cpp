/*-------------------------------------------------------------------------
 *
 * vacuum.cpp
 *		Vacuuming an internal table; see vacuum.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "pg/vacuum.hpp"

extern "C" {
#include "commands/vacuum.h"
#include "nodes/makefuncs.h"
#include "parser/parse_node.h"
#include "tcop/pquery.h"
#include "access/xact.h"
#include "utils/guc.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
}

namespace cache_ext::pg {

static DefElem *
option(const char *name, const char *value)
{
	return makeDefElem(pstrdup(name), reinterpret_cast<Node *>(makeString(pstrdup(value))), -1);
}

static void
run_vacuum(const char *name, List *options)
{
	VacuumStmt *statement = makeNode(VacuumStmt);
	RangeVar *table = makeRangeVar(pstrdup("cache_ext_internal"), pstrdup(name), -1);

	statement->options = options;
	statement->is_vacuumcmd = true;
	statement->rels = list_make1(makeVacuumRelation(table, InvalidOid, NIL));
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	ExecVacuum(make_parsestate(nullptr), statement, true);
	if (ActiveSnapshotSet())
		PopActiveSnapshot();
	CommitTransactionCommand();
}

/* Runs it where PortalContext is what VACUUM keeps things in that outlive its transactions. */
template <typename Function>
static void
in_portal_context(Function function)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext portal = PortalContext;
	MemoryContext context =
	    AllocSetContextCreate(TopMemoryContext, "cache_ext vacuum", ALLOCSET_DEFAULT_SIZES);

	PortalContext = context;
	PG_TRY();
	{
		MemoryContextSwitchTo(context);
		function();
	}
	PG_FINALLY();
	{
		PortalContext = portal;
		MemoryContextSwitchTo(caller);
		MemoryContextDelete(context);
	}
	PG_END_TRY();
}

void
vacuum_internal_table(const char *name)
{
	in_portal_context([name] {
		run_vacuum(name, list_make2(option("truncate", "off"), option("skip_locked", "on")));
	});
}

bool
rewrite_internal_table(const char *name, int lock_ms)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile bool rewritten = true;

	SetConfigOption("lock_timeout", psprintf("%d", lock_ms), PGC_SUSET, PGC_S_SESSION);
	PG_TRY();
	{
		in_portal_context([name] { run_vacuum(name, list_make1(option("full", "on"))); });
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);

		ErrorData *error = CopyErrorData();

		SetConfigOption("lock_timeout", "0", PGC_SUSET, PGC_S_SESSION);
		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
			PG_RE_THROW();
		FlushErrorState();
		AbortCurrentTransaction();
		MemoryContextSwitchTo(caller);
		FreeErrorData(error);
		rewritten = false;
	}
	PG_END_TRY();
	SetConfigOption("lock_timeout", "0", PGC_SUSET, PGC_S_SESSION);
	return rewritten;
}

} /* namespace cache_ext::pg */
