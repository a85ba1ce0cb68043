/*-------------------------------------------------------------------------
 *
 * vacuum.cpp
 *		Keeping the tables that folding churns small.
 *
 * A fold leaves as many dead rows as it read.  Autovacuum comes once a minute;
 * the worker comes about once a busy second.
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
#include "catalog/pg_class.h"
#include "pgstat.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
}

namespace cache_ext::statistics {

/* So many dead rows, and such a share of the live ones, are worth a vacuum. */
constexpr int64 kDeadRows = 200;
constexpr int64 kLivePerDeadRow = 10;

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

/* Names, because the list outlives the transaction that made it. */
static List *
churned_tables(MemoryContext context)
{
	List *relations = NIL;
	List *names = NIL;
	ListCell *cell;

	if (!pg::take_maintenance_lock(pg::Maintenance::kFolding, false) ||
	    !OidIsValid(internal_relation("progress", true)))
		return NIL;
	relations =
	    list_make4_oid(internal_relation("progress"), internal_relation("outbox", true),
	                   internal_relation("retained", true), internal_relation("delivery", true));
	foreach (cell, all_sources())
		relations = lappend_oid(relations, static_cast<SourceRow *>(lfirst(cell))->log);
	foreach (cell, all_statistics())
	{
		char name[NAMEDATALEN];

		totals_name(static_cast<StatisticRow *>(lfirst(cell))->id, name);
		relations = lappend_oid(relations, internal_relation(name, true));
	}

	MemoryContext caller = MemoryContextSwitchTo(context);
	foreach (cell, relations)
		if (OidIsValid(lfirst_oid(cell)) && is_churned(lfirst_oid(cell)) &&
		    get_rel_name(lfirst_oid(cell)) != nullptr)
			names = lappend(names, get_rel_name(lfirst_oid(cell)));
	MemoryContextSwitchTo(caller);
	return names;
}

void
vacuum_churned()
{
	pg::guard([] {
		MemoryContext context =
		    AllocSetContextCreate(TopMemoryContext, "cache_ext vacuum", ALLOCSET_DEFAULT_SIZES);
		ListCell *cell;

		StartTransactionCommand();
		pgstat_clear_snapshot();
		List *names = churned_tables(context);
		CommitTransactionCommand();

		foreach (cell, names)
			pg::vacuum_internal_table(static_cast<char *>(lfirst(cell)));
		MemoryContextSwitchTo(TopMemoryContext);
		MemoryContextDelete(context);
	});
}

} /* namespace cache_ext::statistics */
