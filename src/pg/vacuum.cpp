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
#include "utils/portal.h"
#include "utils/snapmgr.h"
}

namespace cache_ext::pg {

static DefElem *
option(const char *name, const char *value)
{
	return makeDefElem(pstrdup(name), reinterpret_cast<Node *>(makeString(pstrdup(value))), -1);
}

static VacuumStmt *
make_statement(const char *name, bool truncate)
{
	VacuumStmt *statement = makeNode(VacuumStmt);
	RangeVar *table = makeRangeVar(pstrdup("cache_ext_internal"), pstrdup(name), -1);

	statement->options =
	    list_make2(option("truncate", truncate ? "on" : "off"), option("skip_locked", "on"));
	statement->is_vacuumcmd = true;
	statement->rels = list_make1(makeVacuumRelation(table, InvalidOid, NIL));
	return statement;
}

void
vacuum_internal_table(const char *name, bool truncate)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext portal = PortalContext;
	MemoryContext context =
	    AllocSetContextCreate(TopMemoryContext, "cache_ext vacuum", ALLOCSET_DEFAULT_SIZES);

	PortalContext = context; /* where VACUUM keeps what outlives its transactions */
	PG_TRY();
	{
		MemoryContextSwitchTo(context);

		VacuumStmt *statement = make_statement(name, truncate);

		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		ExecVacuum(make_parsestate(nullptr), statement, true);
		if (ActiveSnapshotSet())
			PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_FINALLY();
	{
		PortalContext = portal;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
}

} /* namespace cache_ext::pg */
