/*-------------------------------------------------------------------------
 *
 * vacuum.cpp
 *		Vacuuming an internal table; see vacuum.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "pg/vacuum.hpp"

extern "C" {
#include "access/relation.h"
#include "catalog/namespace.h"
#include "catalog/storage.h"
#include "commands/vacuum.h"
#include "nodes/makefuncs.h"
#include "parser/parse_node.h"
#include "tcop/pquery.h"
#include "access/xact.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/portal.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
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

/* Runs it with a limit on waits for locks. */
template <typename Function>
static Shortened
within_lock_timeout(Function function)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile Shortened done = Shortened::kYes;

	SetConfigOption("lock_timeout", psprintf("%d", kShorteningMs), PGC_SUSET, PGC_S_SESSION);
	PG_TRY();
	{
		function();
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
		done = Shortened::kHeldOff;
	}
	PG_END_TRY();
	SetConfigOption("lock_timeout", "0", PGC_SUSET, PGC_S_SESSION);
	return done;
}

/* ---- cutting ---- */

static bool
is_empty_page(Relation heap, BlockNumber block, BufferAccessStrategy strategy)
{
	Buffer buffer = ReadBufferExtended(heap, MAIN_FORKNUM, block, RBM_NORMAL, strategy);
	bool empty = true;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	Page page = BufferGetPage(buffer);
	OffsetNumber last = PageIsNew(page) ? 0 : PageGetMaxOffsetNumber(page);

	/* Dead ones count: indexes and old snapshots may still want them. */
	for (OffsetNumber i = FirstOffsetNumber; i <= last && empty; ++i)
		empty = !ItemIdIsUsed(PageGetItemId(page, i));
	UnlockReleaseBuffer(buffer);
	return empty;
}

/* The pages of the file, and how many of them to keep: what time does not allow to look at, too. */
static BlockNumber
pages_to_keep(Relation heap, BlockNumber *pages)
{
	BufferAccessStrategy strategy = GetAccessStrategy(BAS_VACUUM);
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), kShorteningMs);
	BlockNumber keep = *pages = RelationGetNumberOfBlocks(heap);

	while (keep > 0 && (keep % 32 != 0 || GetCurrentTimestamp() < until) &&
	       is_empty_page(heap, keep - 1, strategy))
		--keep;
	FreeAccessStrategy(strategy);
	return keep;
}

/* Half the file, or as much as one look takes of a very large one. */
static bool
is_worth_cutting(BlockNumber pages, BlockNumber keep)
{
	constexpr BlockNumber kMany = 4096;

	return pages - keep >= Min(Max(pages / 2, 1), kMany);
}

Shortened
cut_internal_table(const char *name)
{
	bool worth = false;
	Oid table;

	StartTransactionCommand();
	table = get_relname_relid(name, get_namespace_oid("cache_ext_internal", true));
	if (Relation heap = OidIsValid(table) ? try_relation_open(table, AccessShareLock) : nullptr)
	{
		BlockNumber pages;
		BlockNumber keep = pages_to_keep(heap, &pages);

		worth = is_worth_cutting(pages, keep);
		relation_close(heap, AccessShareLock);
	}
	CommitTransactionCommand();
	if (!worth)
		return Shortened::kNot;

	return within_lock_timeout([table] {
		StartTransactionCommand();
		if (Relation heap = try_relation_open(table, AccessExclusiveLock))
		{
			BlockNumber pages;
			BlockNumber keep = pages_to_keep(heap, &pages);

			if (is_worth_cutting(pages, keep))
				RelationTruncate(heap, keep);
			relation_close(heap, AccessExclusiveLock);
		}
		CommitTransactionCommand();
	});
}

/* ---- rewriting ---- */

Shortened
rewrite_internal_table(const char *name)
{
	return within_lock_timeout([name] {
		in_portal_context([name] { run_vacuum(name, list_make1(option("full", "on"))); });
	});
}

} /* namespace cache_ext::pg */
