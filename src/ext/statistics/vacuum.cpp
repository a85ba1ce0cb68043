/*-------------------------------------------------------------------------
 *
 * vacuum.cpp
 *		Keeping the tables that folding churns small.
 *
 * A fold leaves as many dead rows as it read.  Autovacuum comes once a minute;
 * the worker comes about once a busy second, and again while an old snapshot
 * keeps dead rows.  A table that is mostly empty pages then is rewritten.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/catalog.hpp"
#include "ext/statistics/definition.hpp"
#include "ext/statistics/statistics.hpp"
#include "pg/guard.hpp"
#include "pg/maintenance_lock.hpp"
#include "pg/vacuum.hpp"

extern "C" {
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/freespace.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
}

namespace cache_ext::statistics {

/* So many dead rows, and such a share of the live ones, are worth a vacuum. */
constexpr int64 kDeadRows = 200;
constexpr int64 kLivePerDeadRow = 10;

constexpr BlockNumber kPagesOfSmallTable = 64;
constexpr Size kRoomOfEmptyPage = BLCKSZ - 256;
constexpr int kRewritingMs = 20; /* how long writers and readers may be held up for it */

static bool
is_churned(Oid relation)
{
	PgStat_StatTabEntry *entry = pgstat_fetch_stat_tabentry(relation);

	if (entry == nullptr)
		return false;
#if PG_VERSION_NUM >= 160000
	return entry->dead_tuples > kDeadRows + entry->live_tuples / kLivePerDeadRow;
#else
	return entry->n_dead_tuples > kDeadRows + entry->n_live_tuples / kLivePerDeadRow;
#endif
}

/*
 * Are most of its pages empty?  A snapshot that was held open makes a fold leave
 * more behind than the next vacuum may remove; when it has, what reads all of
 * the table still pays for the pages.
 */
static bool
is_hollow(Oid table)
{
	if (!ConditionalLockRelationOid(table, AccessShareLock))
		return false;

	Relation relation = table_open(table, NoLock);
	BlockNumber pages = RelationGetNumberOfBlocks(relation);
	BlockNumber empty = 0;

	for (BlockNumber page = 0; pages > kPagesOfSmallTable && page < pages; ++page)
		if (GetRecordedFreeSpace(relation, page) >= kRoomOfEmptyPage)
			++empty;
	table_close(relation, AccessShareLock);
	return empty > pages / 2;
}

/* What folds churn: logs, totals, and tables of deliveries. */
static List *
tables_of_ours()
{
	List *relations =
	    list_make4_oid(internal_relation("progress", true), internal_relation("outbox", true),
	                   internal_relation("retained", true), internal_relation("delivery", true));
	ListCell *cell;

	foreach (cell, all_sources())
		relations = lappend_oid(relations, static_cast<SourceRow *>(lfirst(cell))->log);
	foreach (cell, all_statistics())
	{
		char name[NAMEDATALEN];

		totals_name(static_cast<StatisticRow *>(lfirst(cell))->id, name);
		relations = lappend_oid(relations, internal_relation(name, true));
	}
	return relations;
}

/* Names, because the list outlives the transaction that makes it; `left` if nobody may look now. */
template <typename Test>
static List *
names_of_tables(MemoryContext context, bool *left, Test test)
{
	List *names = NIL;

	StartTransactionCommand();
	pgstat_clear_snapshot();
	if (!pg::take_maintenance_lock(pg::Maintenance::kFolding, false))
		*left = true;
	else if (OidIsValid(internal_relation("progress", true)))
	{
		ListCell *cell;

		foreach (cell, tables_of_ours())
			if (OidIsValid(lfirst_oid(cell)) && test(lfirst_oid(cell)))
				if (char *name = get_rel_name(lfirst_oid(cell)))
				{
					MemoryContext caller = MemoryContextSwitchTo(context);

					names = lappend(names, pstrdup(name));
					MemoryContextSwitchTo(caller);
				}
	}
	CommitTransactionCommand();
	return names;
}

bool
vacuum_churned()
{
	return pg::guard([] {
		MemoryContext context =
		    AllocSetContextCreate(TopMemoryContext, "cache_ext vacuum", ALLOCSET_DEFAULT_SIZES);
		ListCell *cell;
		bool left = false;

		foreach (cell, names_of_tables(context, &left, is_churned))
			pg::vacuum_internal_table(static_cast<char *>(lfirst(cell)));

		/* What is churned still is what an old snapshot may see. */
		List *hollow = names_of_tables(context, &left, [&](Oid table) {
			bool churned = is_churned(table);

			left = left || churned;
			return !churned && is_hollow(table);
		});
		foreach (cell, hollow)
			if (!pg::rewrite_internal_table(static_cast<char *>(lfirst(cell)), kRewritingMs))
				left = true;
		MemoryContextSwitchTo(TopMemoryContext);
		MemoryContextDelete(context);
		return left;
	});
}

} /* namespace cache_ext::statistics */
