/*-------------------------------------------------------------------------
 *
 * drop.cpp
 *		Forgetting what was dropped, and refusing drops that would be unseen.
 *
 * Dependencies drop the tables of a statistic with its view; this event trigger
 * drops its rows in the catalog and the triggers that nobody needs any more.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/capture.hpp"
#include "ext/statistics/sources.hpp"
#include "pg/guard.hpp"

extern "C" {
#include "catalog/pg_class.h"
#include "commands/event_trigger.h"
#include "executor/spi.h"
#include "nodes/parsenodes.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
}

namespace cache_ext::statistics {

static List *
dropped_relations()
{
	List *relations = NIL;

	SPI_connect();
	if (SPI_execute("SELECT objid FROM pg_catalog.pg_event_trigger_dropped_objects() "
	                "WHERE classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND objsubid = 0",
	                true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not list dropped objects");
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
	return relations;
}

static void
forget_statistics(List *dropped)
{
	ListCell *cell;

	foreach (cell, all_statistics())
	{
		auto *row = static_cast<StatisticRow *>(lfirst(cell));
		ListCell *link;

		if (!list_member_oid(dropped, row->relation) && !list_member_oid(dropped, row->state))
			continue;

		List *sources = sources_of_statistic(row->id);
		delete_statistic(row->id);
		foreach (link, sources)
		{
			SourceRow source;

			if (!find_source(lfirst_int(link), &source))
				continue;
			release_source(source.relation);
			if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(source.relation)))
				forget_compiled(source.relation);
		}
	}
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

static void
forget_sources(List *dropped)
{
	ListCell *cell;
	AsOwner owner(internal_owner());

	forget_watches(dropped);

	foreach (cell, dropped)
	{
		Oid relation = lfirst_oid(cell);
		SourceRow source;
		int32 number;

		if (find_leaf(relation, &number))
		{
			if (find_source(number, &source) && !list_member_oid(dropped, source.relation))
				ereport(ERROR,
				        (errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				         errmsg("cannot drop a partition of \"%s\" while statistics count its rows",
				                get_rel_name(source.relation)),
				         errhint("Use ALTER TABLE ... DETACH PARTITION first, then drop it.")));
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
	(void) fcinfo;
	pg::guard([&] {
		if (!OidIsValid(internal_relation("source", true)))
			return;

		List *dropped = dropped_relations();
		forget_statistics(dropped);
		forget_sources(dropped);
	});
	PG_RETURN_POINTER(nullptr);
}
}

} /* namespace cache_ext::statistics */
