/*-------------------------------------------------------------------------
 *
 * vacuum.cpp
 *		Keeping the tables that folding churns small.
 *
 * A fold leaves as many dead rows as it read.  Autovacuum comes once a minute;
 * the worker comes once a busy second, more often while somebody reads, and
 * again while an old snapshot keeps dead rows.  Who reads a statistic passes
 * over all of its logs, and over totals without groups, so what they have grown
 * to meanwhile is given back.
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
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/freespace.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
}

namespace cache_ext::statistics {

/* So many dead rows, and such a share of the live ones, are worth a vacuum. */
constexpr int64 kDeadRows = 200;
constexpr int64 kLivePerDeadRow = 10;

/* What a log may have, and more where that many rows have just passed through all of them. */
constexpr BlockNumber kPagesOfSmallTable = 32;
constexpr int64 kRowsPerPage = 40;
constexpr Size kRoomOfEmptyPage = BLCKSZ - 256;

/* What is rewritten: reading and copying it takes milliseconds. */
constexpr BlockNumber kMostPages = 8192;
constexpr int64 kMostRows = 10000;

/* Somebody may have been held up by the last time. */
constexpr int kAfterShorteningMs = 5 * 1000;
constexpr int kAfterHeldOffMs = 10 * 1000;

static TimestampTz next_shortening = 0;
static BlockNumber pages_of_large_log = kPagesOfSmallTable;

struct Rows
{
	int64 live;
	int64 dead;
};

static Rows
rows_of(Oid table)
{
	PgStat_StatTabEntry *entry = pgstat_fetch_stat_tabentry(table);

	if (entry == nullptr)
		return {0, 0};
#if PG_VERSION_NUM >= 160000
	return {entry->live_tuples, entry->dead_tuples};
#else
	return {entry->n_live_tuples, entry->n_dead_tuples};
#endif
}

static bool
is_churned(Oid table)
{
	Rows rows = rows_of(table);

	return rows.dead > kDeadRows + rows.live / kLivePerDeadRow;
}

/* The relation, or a null pointer when somebody keeps it. */
static Relation
open_at_once(Oid table)
{
	return ConditionalLockRelationOid(table, AccessShareLock) ? table_open(table, NoLock) : nullptr;
}

static bool
is_large(Oid table)
{
	Relation relation = open_at_once(table);

	if (relation == nullptr)
		return false;
	BlockNumber pages = RelationGetNumberOfBlocks(relation);
	table_close(relation, AccessShareLock);
	return pages > pages_of_large_log;
}

/*
 * Few rows, and most of the pages empty?  A snapshot that was held open makes a
 * fold leave more behind than the next vacuum may remove.
 */
static bool
is_hollow(Oid table)
{
	/* The delivery cuts the outbox itself. */
	bool ours = rows_of(table).live <= kMostRows && strcmp(get_rel_name(table), "outbox") != 0;
	Relation relation = ours ? open_at_once(table) : nullptr;

	if (relation == nullptr)
		return false;
	BlockNumber pages = RelationGetNumberOfBlocks(relation);
	BlockNumber empty = 0;

	if (pages > kPagesOfSmallTable && pages <= kMostPages)
		for (BlockNumber page = 0; page < pages; ++page)
			if (GetRecordedFreeSpace(relation, page) >= kRoomOfEmptyPage)
				++empty;
	table_close(relation, AccessShareLock);
	return empty > pages / 2;
}

static bool
is_log(const char *name)
{
	return strncmp(name, "log_", 4) == 0;
}

/* Of a large log the last dead row goes, too, or it would hold the end. */
static bool
wants_vacuum(Oid table)
{
	return is_churned(table) ||
	       (is_log(get_rel_name(table)) && rows_of(table).dead > 0 && is_large(table));
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
			if (OidIsValid(lfirst_oid(cell)) && get_rel_name(lfirst_oid(cell)) != nullptr &&
			    test(lfirst_oid(cell)))
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

/*
 * A log is emptied from its front and filled there again, so its end is empty
 * and can be cut off.  Totals have rows anywhere.
 */
static bool
shorten(const char *name)
{
	pg::Shortened shortened =
	    is_log(name) ? pg::cut_internal_table(name) : pg::rewrite_internal_table(name);
	int pause = shortened == pg::Shortened::kHeldOff ? kAfterHeldOffMs : kAfterShorteningMs;

	if (shortened == pg::Shortened::kNot)
		return false;
	next_shortening = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), pause);
	return true;
}

bool
vacuum_churned(int64 folded)
{
	pages_of_large_log =
	    (BlockNumber) Min(kPagesOfSmallTable + folded / kRowsPerPage, (int64) PG_INT32_MAX);
	return pg::guard([] {
		MemoryContext context =
		    AllocSetContextCreate(TopMemoryContext, "cache_ext vacuum", ALLOCSET_DEFAULT_SIZES);
		ListCell *cell;
		bool left = false;

		foreach (cell, names_of_tables(context, &left, wants_vacuum))
			pg::vacuum_internal_table(static_cast<char *>(lfirst(cell)));

		/* What is churned still is what an old snapshot may see. */
		List *large = names_of_tables(context, &left, [&](Oid table) {
			bool churned = is_churned(table);

			left = left || churned;
			return !churned && (is_log(get_rel_name(table)) ? is_large(table) : is_hollow(table));
		});
		foreach (cell, large)
			left = GetCurrentTimestamp() < next_shortening ||
			       shorten(static_cast<char *>(lfirst(cell))) || left;
		MemoryContextSwitchTo(TopMemoryContext);
		MemoryContextDelete(context);
		return left;
	});
}

} /* namespace cache_ext::statistics */
