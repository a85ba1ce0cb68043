/*-------------------------------------------------------------------------
 *
 * lost_index.cpp
 *		See lost_index.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/lost_index.hpp"
#include "ext/statistics/capture.hpp"
#include "ext/statistics/relations.hpp"
#include "ext/statistics/fill.hpp"
#include "ext/statistics/source_index.hpp"
#include "ext/statistics/sources.hpp"
#include "ext/statistics/window.hpp"

extern "C" {
#include "access/htup_details.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "nodes/makefuncs.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
}

namespace cache_ext::statistics {

static bool
lacks_index(const Definition *d, const Part &part)
{
	return part.by_index && !OidIsValid(find_source_index(d, part));
}

char *
lost_index(const Definition *d)
{
	for (int i = 0; i < d->part_count; ++i)
		if (lacks_index(d, d->parts[i]))
			return psprintf("table %s has no index any more that gives minimum and maximum; reads "
			                "run the query until there is one, or until statistics_refresh()",
			                qualified_name(d->blocks[d->parts[i].block].source));
	for (int i = 0; i < d->block_count; ++i)
	{
		const Window *window = d->blocks[i].window;

		if (window == nullptr || has_window_index(d->blocks[i], window))
			continue;

		Oid source = window_source(d->blocks[i], window);
		return psprintf("table %s has no index on column \"%s\" any more; reads scan the table "
		                "for the ends of the window until there is one",
		                qualified_name(source), get_attname(source, window->column, false));
	}
	return nullptr;
}

void
unfill_without_index(List *statistics)
{
	ListCell *cell;

	foreach (cell, statistics)
	{
		Definition *d = is_filled(lfirst_int(cell)) ? definition_of(lfirst_int(cell)) : nullptr;
		bool lacks = false;

		for (int i = 0; d != nullptr && i < d->part_count; ++i)
			lacks = lacks || lacks_index(d, d->parts[i]);
		if (lacks)
			unfill(lfirst_int(cell));
	}
}

/* Tables whose indexes the command drops; it may run in several transactions (CONCURRENTLY). */
static List *losing = NIL;

void
note_index_drop(DropStmt *statement)
{
	ListCell *cell;

	list_free(losing);
	losing = NIL;
	foreach (cell, statement->objects)
	{
		Oid index =
		    RangeVarGetRelid(makeRangeVarFromNameList(lfirst_node(List, cell)), NoLock, true);
		Oid table =
		    get_rel_relkind(index) == RELKIND_INDEX ? IndexGetRelation(index, true) : InvalidOid;
		MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);

		if (OidIsValid(table))
			losing = lappend_oid(losing, table);
		MemoryContextSwitchTo(caller);
	}
}

void
unfill_after_index_drop()
{
	ListCell *cell;
	SourceRow source;

	foreach (cell, losing)
		if (find_source_by_relation(lfirst_oid(cell), &source))
			unfill_without_index(statistics_of_source(source.id));
}

Definition *
add_missing_parts(Definition *definition)
{
	int32 statistic = definition->row.id;
	bool any = false;
	AsOwner owner(internal_owner());

	for (int i = 0; i < definition->part_count; ++i)
		if (lacks_index(definition, definition->parts[i]))
		{
			create_part(definition, statistic, i);
			any = true;
		}
	owner.restore();
	if (!any)
		return definition;
	forget_compiled(definition->row.query);
	CommandCounterIncrement();
	return definition_of(statistic);
}

/* Is what made the tuple in the snapshot's past?  When in doubt it is not. */
static bool
is_known_to(HeapTuple tuple, Snapshot snapshot)
{
	TransactionId maker = HeapTupleHeaderGetXmin(tuple->t_data);

	if (!TransactionIdIsNormal(maker))
		return true;
	if (TransactionIdIsCurrentTransactionId(maker))
		return HeapTupleHeaderGetCmin(tuple->t_data) < snapshot->curcid;
	return !XidInMVCCSnapshot(maker, snapshot);
}

bool
has_younger_part(const Definition *d, Snapshot snapshot)
{
	bool younger = false;

	for (int i = 0; i < d->part_count && !younger; ++i)
	{
		if (d->parts[i].by_index || !only_extremes(d, d->parts[i]))
			continue;

		HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(d->parts[i].table));

		if (!HeapTupleIsValid(tuple))
			return true;
		younger = !is_known_to(tuple, snapshot);
		ReleaseSysCache(tuple);
	}
	return younger;
}

} /* namespace cache_ext::statistics */
