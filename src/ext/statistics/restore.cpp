/*-------------------------------------------------------------------------
 *
 * restore.cpp
 *		See restore.hpp.
 *
 * A dump carries a statistic as what it is made of: the view that users read,
 * the foreign table state_<id> beneath it, the view cache_ext_query_<id> with
 * its query, and the triggers of its tables.  Everything else is true of one
 * database only: the tables that hold totals, parts and partial rows are members
 * of the extension, which a dump leaves out, and so are our catalog's rows.  So
 * nothing restored can be counted twice, in whatever order it comes, and until
 * a statistic is taken up it answers by running its query.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/restore.hpp"
#include "ext/statistics/capture.hpp"
#include "ext/statistics/relations.hpp"
#include "ext/statistics/fill.hpp"
#include "ext/statistics/sources.hpp"
#include "ext/statistics/triggers.hpp"

extern "C" {
#include "access/table.h"
#include "executor/spi.h"
#include "rewrite/rewriteHandler.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
}

namespace cache_ext::statistics {

/* Every row of a query over our catalog, as a list in the caller's context. */
template <typename Make>
static List *
rows_of(const char *query, Make &&make)
{
	MemoryContext context = CurrentMemoryContext;
	List *rows = NIL;
	AsOwner owner(internal_owner());
	PinnedSearchPath path;

	PushActiveSnapshot(GetLatestSnapshot());
	SPI_connect();
	if (SPI_execute(query, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not execute \"%s\"", query);
	for (uint64 i = 0; i < SPI_processed; ++i)
	{
		Oid values[4] = {};

		for (int column = 0; column < SPI_tuptable->tupdesc->natts; ++column)
		{
			bool null;
			Datum value =
			    SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, column + 1, &null);

			values[column] = null ? InvalidOid : DatumGetObjectId(value);
		}
		MemoryContext caller = MemoryContextSwitchTo(context);
		rows = lappend(rows, make(values));
		MemoryContextSwitchTo(caller);
	}
	SPI_finish();
	PopActiveSnapshot();
	path.restore();
	owner.restore();
	return rows;
}

List *
restored_statistics()
{
	/* state_<id> can be named by us alone, so the one view over it is what users see. */
	return rows_of(
	    psprintf(
	        "SELECT substring(q.relname FROM 17)::pg_catalog.oid, u.ev_class, q.oid, s.oid "
	        "FROM pg_catalog.pg_class q "
	        "JOIN pg_catalog.pg_class s ON s.relnamespace = q.relnamespace "
	        "AND s.relname = 'state_' || substring(q.relname FROM 17) "
	        "JOIN LATERAL (SELECT r.ev_class FROM pg_catalog.pg_depend d "
	        "JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid "
	        "WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass "
	        "AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass "
	        "AND d.refobjid = s.oid ORDER BY 1 LIMIT 1) u ON true "
	        "WHERE q.relnamespace = '%s'::pg_catalog.regnamespace AND q.relkind = 'v' "
	        "AND q.relname ~ '^cache_ext_query_[0-9]+$' "
	        "AND NOT EXISTS (SELECT FROM cache_ext_internal.statistic k WHERE k.query = q.oid) "
	        "ORDER BY 1",
	        kInternalSchema),
	    [](const Oid *values) {
		    auto *row = static_cast<StatisticRow *>(palloc(sizeof(StatisticRow)));

		    *row = {static_cast<int32>(values[0]), values[1], values[2], values[3]};
		    return row;
	    });
}

bool
take_up(const StatisticRow &restored, bool insist)
{
	ListCell *cell;

	/* Once its view is locked, neither the statistic nor a table of its query can be dropped. */
	if (!lock_existing(restored.query, AccessShareLock) ||
	    !lock_existing(restored.relation, AccessShareLock))
		return false;

	Relation view = table_open(restored.query, NoLock);
	Definition *sketch = analyze(get_view_query(view), CurrentMemoryContext, true);
	List *sources = source_relations(sketch);

	table_close(view, NoLock);
	if (!lock_existing_sources(sources, AccessShareLock))
		return false;
	foreach (cell, sources)
		if (!insist && trigger_trouble(lfirst_oid(cell)) != nullptr)
			return false;

	AsOwner owner(internal_owner());
	foreach (cell, sources)
		(void) ensure_source(lfirst_oid(cell));
	establish(restored, sketch);
	owner.restore();
	return true;
}

List *
watched_tables_to_take_up()
{
	return rows_of("SELECT DISTINCT w.relation FROM cache_ext_internal.watch w "
	               "JOIN pg_catalog.pg_class c ON c.oid = w.relation "
	               "WHERE NOT EXISTS (SELECT FROM cache_ext_internal.source s "
	               "WHERE s.relation = w.relation)",
	               [](const Oid *values) {
		               auto *table = static_cast<Oid *>(palloc(sizeof(Oid)));

		               *table = values[0];
		               return table;
	               });
}

int
take_up_watched_tables()
{
	ListCell *cell;
	int count = 0;

	foreach (cell, watched_tables_to_take_up())
	{
		Oid table = *static_cast<Oid *>(lfirst(cell));

		if (!lock_existing(table, AccessShareLock) || trigger_trouble(table) != nullptr)
			continue;
		(void) ensure_source(table);
		++count;
	}
	return count;
}

Oid
query_of_state(Oid state)
{
	char *name = get_rel_name(state);
	int id;

	if (name == nullptr || sscanf(name, "state_%d", &id) != 1)
		return InvalidOid;
	return internal_relation(psprintf("cache_ext_query_%d", id), true);
}

} /* namespace cache_ext::statistics */
