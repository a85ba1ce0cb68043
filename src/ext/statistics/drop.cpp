/*-------------------------------------------------------------------------
 *
 * drop.cpp
 *		Forgetting what was dropped, and refusing drops that would be unseen.
 *
 * This event trigger drops what a statistic has when its view is dropped: its
 * other relations, its tables, its rows in the catalog and the triggers that
 * nobody needs any more.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/watch.hpp"
#include "ext/statistics/capture.hpp"
#include "ext/statistics/definition.hpp"
#include "ext/statistics/fill.hpp"
#include "ext/statistics/follow.hpp"
#include "ext/statistics/lost_index.hpp"
#include "ext/statistics/sources.hpp"
#include "ext/statistics/ties.hpp"
#include "pg/event_trigger.hpp"
#include "pg/guard.hpp"
#include "pg/maintenance_lock.hpp"
#include "pg/objects.hpp"

extern "C" {
#include "access/table.h"
#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "nodes/parsenodes.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/snapmgr.h"
}

namespace cache_ext::statistics {

/* OIDs in the first column of a query. */
static List *
numbers_of(const char *query)
{
	List *relations = NIL;
	PinnedSearchPath path;

	PushActiveSnapshot(GetLatestSnapshot()); /* the transaction's own may be older than the table */
	SPI_connect();
	if (SPI_execute(query, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not execute \"%s\"", query);
	for (uint64 i = 0; i < SPI_processed; ++i)
	{
		bool null;
		Oid relation =
		    DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &null));
		MemoryContext caller = MemoryContextSwitchTo(CurTransactionContext);

		relations = lappend_oid(relations, relation);
		MemoryContextSwitchTo(caller);
	}
	SPI_finish();
	PopActiveSnapshot();
	path.restore();
	return relations;
}

static List *
dropped_relations()
{
	return numbers_of(
	    "SELECT objid FROM pg_catalog.pg_event_trigger_dropped_objects() "
	    "WHERE classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND objsubid = 0");
}

/* Tables that have lost a trigger and still exist. */
static List *
tables_without_trigger()
{
	return numbers_of("SELECT DISTINCT c.oid FROM pg_catalog.pg_event_trigger_dropped_objects() d "
	                  "JOIN pg_catalog.pg_namespace n ON n.nspname = d.address_names[1] "
	                  "JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid "
	                  "AND c.relname = d.address_names[2] "
	                  "WHERE d.object_type = 'trigger' AND d.address_names[3] ~ '^0_cache_ext_'");
}

static bool
is_involved(const StatisticRow &row, List *relations)
{
	return list_member_oid(relations, row.relation) || list_member_oid(relations, row.state) ||
	       list_member_oid(relations, row.query);
}

/*
 * What is left of a statistic.  Its tables are members of the extension and do
 * not go by dependency; its relations do when a source goes, but not when the
 * user's view does.
 */
static void
drop_remains(const StatisticRow &row)
{
	ListCell *cell;

	if (relation_exists(row.relation))
		run("DROP VIEW %s", qualified_name(row.relation));
	if (relation_exists(row.state))
		run("DROP FOREIGN TABLE %s", qualified_name(row.state));
	if (relation_exists(row.query))
		run("DROP VIEW %s", qualified_name(row.query));
	foreach (cell, numbers_of(psprintf("SELECT oid FROM pg_catalog.pg_class WHERE relkind = 'r' "
	                                   "AND relnamespace = '%s'::pg_catalog.regnamespace "
	                                   "AND relname ~ '^(totals_%d|part_%d_[0-9]+)$'",
	                                   kInternalSchema, row.id, row.id)))
		drop_own_table(get_rel_name(lfirst_oid(cell)));
}

static void
forget_statistics(List *dropped)
{
	ListCell *cell;
	AsOwner owner(internal_owner());

	foreach (cell, all_statistics())
	{
		auto *row = static_cast<StatisticRow *>(lfirst(cell));
		ListCell *link;

		if (!is_involved(*row, dropped))
			continue;

		List *sources = sources_of_statistic(row->id);
		pg::hold_off_maintenance();
		delete_statistic(row->id);
		forget_failure(row->id);
		drop_remains(*row);
		foreach (link, sources)
		{
			SourceRow source;

			if (!find_source(lfirst_int(link), &source))
				continue;
			release_source(source.relation);
			if (relation_exists(source.relation))
				forget_compiled(source.relation);
		}
	}
	owner.restore();
}

static void
forget_watches(List *dropped)
{
	StringInfoData numbers;
	ListCell *cell;

	if (dropped == NIL)
		return;
	initStringInfo(&numbers);
	foreach (cell, dropped)
		appendStringInfo(&numbers, "%s%u", numbers.len == 0 ? "" : ", ", lfirst_oid(cell));
	run("DELETE FROM cache_ext_internal.watch WHERE relation IN (%s)", numbers.data);
}

/* Watched tables, and columns of such, that went: their rows are not what they were. */
static void
tell_watches_of_dropped()
{
	PinnedSearchPath path;

	PushActiveSnapshot(GetLatestSnapshot());
	SPI_connect();
	if (SPI_execute("SELECT DISTINCT w.relation, d.address_names[1], d.address_names[2], "
	                "CASE WHEN d.objsubid <> 0 THEN d.address_names[3] END "
	                "FROM pg_catalog.pg_event_trigger_dropped_objects() d "
	                "JOIN cache_ext_internal.watch w ON w.relation = d.objid "
	                "WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass",
	                true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not list dropped tables with watches");
	for (uint64 i = 0; i < SPI_processed; ++i)
	{
		HeapTuple row = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		bool null;

		invalidation::watch_altered(DatumGetObjectId(SPI_getbinval(row, desc, 1, &null)),
		                            SPI_getvalue(row, desc, 2), SPI_getvalue(row, desc, 3),
		                            SPI_getvalue(row, desc, 4));
	}
	SPI_finish();
	PopActiveSnapshot();
	path.restore();
}

/* A partition went with its rows: what names the watches of its root could have given them goes. */
static void
tell_watches(Oid root)
{
	Relation relation = table_open(root, AccessShareLock);
	auto *watches =
	    invalidation::compile_watches(root, RelationGetDescr(relation), CurrentMemoryContext);

	if (watches != nullptr)
		invalidation::watch_truncate(watches);
	table_close(relation, NoLock);
}

static void
forget_sources(List *dropped)
{
	ListCell *cell;
	AsOwner owner(internal_owner());

	tell_watches_of_dropped();
	forget_watches(dropped);

	foreach (cell, dropped)
	{
		Oid relation = lfirst_oid(cell);
		SourceRow source;
		int32 number;

		if (find_leaf(relation, &number))
		{
			if (find_source(number, &source) && !list_member_oid(dropped, source.relation))
			{
				if (statistics_of_source(source.id) != NIL)
					ereport(ERROR,
					        (errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					         errmsg("cannot drop a partition or child of \"%s\" while statistics "
					                "count its rows",
					                get_rel_name(source.relation)),
					         errhint("Use ALTER TABLE ... DETACH PARTITION (or NO INHERIT) first, "
					                 "then drop it.")));
				tell_watches(source.relation);
			}
			delete_leaf(relation);
		}
		if (find_source_by_relation(relation, &source))
			release_source(relation);
	}
	owner.restore();
}

extern "C" {

PG_FUNCTION_INFO_V1(cache_ext_on_drop);

Datum
cache_ext_on_drop(PG_FUNCTION_ARGS)
{
	auto *event = pg::event_of(fcinfo, "on_drop");

	pg::guard([&] {
		if (pg::runs_own_script() || !OidIsValid(internal_relation("source", true)))
			return;

		ListCell *cell;
		List *dropped = dropped_relations();

		forget_statistics(dropped);
		forget_sources(dropped);
		untie_after_drop();
		if (running_own_command())
			return;
		if (event->tag == CMDTAG_DROP_INDEX)
			unfill_after_index_drop();
		foreach (cell, tables_without_trigger())
			follow(lfirst_oid(cell));
	});
	PG_RETURN_POINTER(nullptr);
}
}

} /* namespace cache_ext::statistics */
