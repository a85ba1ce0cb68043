/*-------------------------------------------------------------------------
 *
 * follow.cpp
 *		Following what commands have done to sources: partitions and inheritance
 *		children that came and went, triggers that were disabled, columns and
 *		functions that mean something else.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/follow.hpp"
#include "ext/invalidation/watch.hpp"
#include "ext/statistics/capture.hpp"
#include "ext/statistics/relations.hpp"
#include "ext/statistics/feed.hpp"
#include "ext/statistics/fill.hpp"
#include "ext/statistics/lost_index.hpp"
#include "ext/statistics/restore.hpp"
#include "ext/statistics/sources.hpp"
#include "ext/statistics/triggers.hpp"
#include "ext/statistics/used_functions.hpp"
#include "ext/worker.hpp"
#include "pg/event_trigger.hpp"
#include "pg/guard.hpp"
#include "pg/maintenance_lock.hpp"
#include "pg/objects.hpp"

extern "C" {
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "commands/tablecmds.h"
#include "executor/spi.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
}

namespace cache_ext::statistics {

/* ---- whose business a table is ---- */

bool
source_of(Oid relation, SourceRow *source)
{
	int32 number;

	if (find_leaf(relation, &number))
		return find_source(number, source);
	if (get_rel_relispartition(relation))
		relation = llast_oid(get_partition_ancestors(relation));
	return find_source_by_relation(relation, source);
}

static List *
parents_of(Oid relation)
{
	List *parents = NIL;
	Relation catalog = table_open(InheritsRelationId, AccessShareLock);
	ScanKeyData key;

	ScanKeyInit(&key, Anum_pg_inherits_inhrelid, BTEqualStrategyNumber, F_OIDEQ,
	            ObjectIdGetDatum(relation));
	SysScanDesc scan =
	    systable_beginscan(catalog, InheritsRelidSeqnoIndexId, true, nullptr, 1, &key);
	while (HeapTuple tuple = systable_getnext(scan))
		parents =
		    lappend_oid(parents, reinterpret_cast<Form_pg_inherits>(GETSTRUCT(tuple))->inhparent);
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return parents;
}

/* The sources that a table is, belongs to in our books, or inherits from. */
static void
add_sources_of(List **numbers, Oid relation)
{
	SourceRow source;
	ListCell *cell;

	if (source_of(relation, &source))
		*numbers = list_append_unique_int(*numbers, source.id);
	foreach (cell, parents_of(relation))
		add_sources_of(numbers, lfirst_oid(cell));
}

/* ---- members that come and go ---- */

static void
check_rows(const SourceRow &source, Relation member)
{
	const char *name = RelationGetRelationName(member);
	bool counted = statistics_of_source(source.id) != NIL;

	if (member->rd_rel->relpersistence != RELPERSISTENCE_PERMANENT)
		ereport(
		    ERROR,
		    (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		     errmsg("table \"%s\" cannot be unlogged or temporary", name),
		     errdetail("Statistics or watches of \"%s\" would not notice that a crash empties it.",
		               get_rel_name(source.relation)),
		     errhint("Drop the statistics and watches first.")));
	if (counted && member->rd_rel->relrowsecurity)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		                errmsg("table \"%s\" cannot have row security", name),
		                errdetail("Statistics of \"%s\" would show rows that policies hide.",
		                          get_rel_name(source.relation)),
		                errhint("Drop the statistics first.")));
}

static void
check_member(const SourceRow &source, Oid relation)
{
	Relation member = table_open(relation, AccessShareLock);

	if (member->rd_rel->relkind == RELKIND_FOREIGN_TABLE)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		                errmsg("foreign table \"%s\" cannot belong to \"%s\"",
		                       RelationGetRelationName(member), get_rel_name(source.relation)),
		                errdetail("A statistic or watch reads it, and rows that change elsewhere "
		                          "fire no trigger here."),
		                errhint("Drop the statistics and watches first.")));
	check_rows(source, member);
	table_close(member, NoLock);
}

/* Rows that came or went with their table: watches name all that rows could be named by. */
static void
tell_watches(Capture *capture, Relation leaf)
{
	if (capture->watches == nullptr)
		return;

	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(leaf, snapshot, 0, nullptr);
	TupleTableSlot *slot = table_slot_create(leaf, nullptr);

	if (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		invalidation::watch_truncate(capture->watches);
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
}

/* What the rows count for.  The queries' expressions are the users', so they run as who gave the
 * command. */
static void
count_leaf(const SourceRow &source, Relation leaf, int sign, Oid user)
{
	AsOwner invoker(user);

	CheckTableNotInUse(leaf, "count the rows of");
	Capture *capture = compile_capture(leaf, source.relation);

	append_relation(capture, leaf, sign);
	tell_watches(capture, leaf);
	invoker.restore();
}

/* A new member brings its rows into the statistics. */
static void
adopt_leaf(const SourceRow &source, Oid leaf, Oid user)
{
	check_member(source, leaf);
	add_member(source, leaf);
	CommandCounterIncrement();

	Relation relation = table_open(leaf, AccessShareLock);

	count_leaf(source, relation, 1, user);
	table_close(relation, NoLock);
}

/* One that went takes its rows away, after its writers: the command has locked the child that it
 * names alone. */
static void
release_leaf(const SourceRow &source, Oid leaf, Oid user)
{
	Relation relation = table_open(leaf, ShareRowExclusiveLock);

	count_leaf(source, relation, -1, user);
	table_close(relation, NoLock);
	drop_member_triggers(leaf);
	delete_leaf(leaf);
	forget_compiled(leaf);
}

static void
refuse_to_become_partition(const SourceRow &source)
{
	if (!get_rel_relispartition(source.relation))
		return;
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
	                errmsg("table \"%s\" cannot become a partition", get_rel_name(source.relation)),
	                errdetail("A statistic or watch reads it, and rows that reach it through "
	                          "a parent would not be seen."),
	                errhint("Drop the statistics and watches first, and create them on the "
	                        "partitioned table.")));
}

static void
follow_members(const SourceRow &source, List *members, Oid user)
{
	ListCell *cell;
	List *known = leaves_of_source(source.id);

	foreach (cell, known)
		if (!list_member_oid(members, lfirst_oid(cell)) && relation_exists(lfirst_oid(cell)))
		{
			pg::hold_off_maintenance();
			release_leaf(source, lfirst_oid(cell), user);
		}
	foreach (cell, members)
	{
		Oid member = lfirst_oid(cell);

		if (list_member_oid(known, member) || member == source.relation)
			check_member(source, member);
		else if (get_rel_relkind(member) == RELKIND_PARTITIONED_TABLE)
			add_member(source, member);
		else
		{
			pg::hold_off_maintenance();
			adopt_leaf(source, member, user);
		}
	}
}

/*
 * Statistics whose changes go uncounted answer by running their query; once
 * the triggers fire again, the worker fills them anew.
 */
static void
judge_triggers(const SourceRow &source)
{
	ListCell *cell;
	bool trouble = trigger_trouble(source.relation) != nullptr;

	foreach (cell, statistics_of_source(source.id))
	{
		if (trouble)
			unfill(lfirst_int(cell));
		else if (!is_filled(lfirst_int(cell)))
			worker::note_committed_changes_soon(worker::Work::kFilling);
	}
}

static void
follow_source(const SourceRow &source, Oid user)
{
	ListCell *cell;

	refuse_to_become_partition(source);

	List *members = find_all_inheritors(source.relation, AccessShareLock, nullptr);

	follow_members(source, members, user);
	foreach (cell, members)
		mend_member_triggers(lfirst_oid(cell), false);
	CommandCounterIncrement();
	judge_triggers(source);
	unfill_without_index(statistics_of_source(source.id));
}

void
follow(Oid relation)
{
	List *numbers = NIL;
	ListCell *cell;
	Oid user = GetUserId();
	AsOwner owner(internal_owner());

	add_sources_of(&numbers, relation);
	foreach (cell, numbers)
	{
		SourceRow source;

		if (find_source(lfirst_int(cell), &source) && relation_exists(source.relation))
			follow_source(source, user);
	}
	/* It came with a dump: the worker will see what it belongs to. */
	if (numbers == NIL && has_capture_trigger(relation))
		worker::note_committed_changes_soon(worker::Work::kFilling);
	owner.restore();
}

/* ---- after a command ---- */

/* What the command has created or altered; types as PostgreSQL names them, quoted. */
static List *
altered_objects(const char *types)
{
	List *objects = NIL;

	PinnedSearchPath path;

	SPI_connect();
	if (SPI_execute(
	        psprintf("SELECT DISTINCT objid FROM pg_catalog.pg_event_trigger_ddl_commands() "
	                 "WHERE object_type IN (%s) ORDER BY 1",
	                 types),
	        false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not list altered objects");
	for (uint64 i = 0; i < SPI_processed; ++i)
	{
		bool null;
		Datum object = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &null);
		MemoryContext caller = MemoryContextSwitchTo(CurTransactionContext);

		objects = lappend_oid(objects, DatumGetObjectId(object));
		MemoryContextSwitchTo(caller);
	}
	SPI_finish();
	path.restore();
	return objects;
}

/* The watched tables among a table and what inherits from it. */
static void
tell_watches_of_column(Oid relation, const char *column)
{
	ListCell *cell;

	foreach (cell, find_all_inheritors(relation, AccessShareLock, nullptr))
	{
		Oid member = lfirst_oid(cell);
		SourceRow source;

		if (find_source_by_relation(member, &source))
			invalidation::watch_altered(member, get_namespace_name(get_rel_namespace(member)),
			                            get_rel_name(member), column);
	}
}

/* The column that rows hold or show otherwise than before.  Dropped ones are seen by drop.cpp. */
static const char *
changed_column(AlterTableCmd *change)
{
	switch (change->subtype)
	{
	case AT_AddColumn:
		return castNode(ColumnDef, change->def)->colname;
	case AT_AlterColumnType:
#if PG_VERSION_NUM >= 170000
	case AT_SetExpression:
#endif
		return change->name;
	default:
		return nullptr;
	}
}

#if PG_VERSION_NUM >= 170000

/* Rows get another value in the column by being written anew, which fires no triggers. */
static void
unfill_generated_anew(Oid relation)
{
	ListCell *cell;
	ListCell *statistic;

	foreach (cell, find_all_inheritors(relation, AccessShareLock, nullptr))
	{
		SourceRow source;

		if (source_of(lfirst_oid(cell), &source))
			foreach (statistic, statistics_of_source(source.id))
				unfill(lfirst_int(statistic));
	}
}

#endif

static void
follow_columns(Node *command)
{
	ListCell *cell;

	if (IsA(command, RenameStmt))
	{
		auto *rename = (RenameStmt *) command;
		Oid relation = rename->renameType == OBJECT_COLUMN
		                   ? RangeVarGetRelid(rename->relation, NoLock, true)
		                   : InvalidOid;

		if (OidIsValid(relation))
			tell_watches_of_column(relation, rename->subname);
	}
	else if (IsA(command, AlterTableStmt))
	{
		auto *alter = (AlterTableStmt *) command;
		Oid relation = RangeVarGetRelid(alter->relation, NoLock, true);

		foreach (cell, OidIsValid(relation) ? alter->cmds : NIL)
		{
			auto *change = lfirst_node(AlterTableCmd, cell);

			if (const char *column = changed_column(change))
				tell_watches_of_column(relation, column);
#if PG_VERSION_NUM >= 170000
			if (change->subtype == AT_SetExpression)
				unfill_generated_anew(relation);
#endif
		}
	}
}

extern "C" {

PG_FUNCTION_INFO_V1(cache_ext_on_alter);

Datum
cache_ext_on_alter(PG_FUNCTION_ARGS)
{
	auto *event = pg::event_of(fcinfo, "on_alter");

	pg::guard([&] {
		ListCell *cell;

		if (running_own_command() || pg::runs_own_script() ||
		    !OidIsValid(internal_relation("source", true)))
			return;
		if (IsA(event->parsetree, CreateFunctionStmt) || IsA(event->parsetree, AlterFunctionStmt))
		{
			foreach (cell, altered_objects("'function'"))
				follow_function(lfirst_oid(cell));
			return;
		}
		foreach (cell, altered_objects("'table', 'foreign table'"))
			follow(lfirst_oid(cell));
		follow_columns(event->parsetree);
	});
	PG_RETURN_POINTER(nullptr);
}
}

} /* namespace cache_ext::statistics */
