/*-------------------------------------------------------------------------
 *
 * before_ddl.cpp
 *		Before a command: what could not be followed is refused, and the worker is
 *		kept off tables that are about to change.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/follow.hpp"
#include "ext/statistics/lost_index.hpp"
#include "ext/statistics/sources.hpp"
#include "ext/statistics/ties.hpp"
#include "ext/statistics/triggers.hpp"
#include "pg/event_trigger.hpp"
#include "pg/guard.hpp"
#include "pg/maintenance_lock.hpp"
#include "pg/objects.hpp"

extern "C" {
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "commands/extension.h"
#include "nodes/makefuncs.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
}

namespace cache_ext::statistics {

/* ---- what could not be followed ---- */

/*
 * DETACH ... CONCURRENTLY takes the rows away in one transaction and lets
 * triggers act in another; between the two the statistics would be wrong.
 */
static void
refuse_concurrent_detach(AlterTableStmt *statement)
{
	ListCell *cell;

	foreach (cell, statement->cmds)
	{
		auto *command = lfirst_node(AlterTableCmd, cell);
		SourceRow source;

		if (command->subtype != AT_DetachPartition ||
		    !castNode(PartitionCmd, command->def)->concurrent)
			continue;

		Oid relation = RangeVarGetRelid(statement->relation, NoLock, true);

		if (OidIsValid(relation) && source_of(relation, &source))
			ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			                errmsg("cannot detach a partition of \"%s\" concurrently",
			                       get_rel_name(relation)),
			                errdetail("Statistics or watches read the table, and could not follow "
			                          "in the same transaction."),
			                errhint("Use DETACH PARTITION without CONCURRENTLY.")));
	}
}

/* Triggers of ours are found by their names, which say when they fire, too. */
static void
refuse_trigger_rename(RenameStmt *statement)
{
	if (statement->renameType != OBJECT_TRIGGER || !is_capture_trigger(statement->subname))
		return;

	Oid relation = RangeVarGetRelid(statement->relation, NoLock, true);
	SourceRow source;

	if (OidIsValid(relation) && source_of(relation, &source))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		                errmsg("cannot rename trigger \"%s\" of table \"%s\"", statement->subname,
		                       get_rel_name(relation)),
		                errdetail("Statistics or watches of the table find it by its name."),
		                errhint("Give your own triggers names that sort before or after it.")));
}

/* ---- what waits for the worker ---- */

/* Is it a statistic, a source or a member of one, an index of these, or an internal? */
static bool
concerns_us(Oid relation)
{
	StatisticRow statistic;
	SourceRow source;

	if (!OidIsValid(relation))
		return false;
	if (get_rel_relkind(relation) == RELKIND_INDEX)
		relation = IndexGetRelation(relation, false);
	return get_rel_namespace(relation) == get_namespace_oid(kInternalSchema, true) ||
	       find_statistic_by_relation(relation, &statistic) || source_of(relation, &source);
}

static bool
names_ours(RangeVar *name)
{
	return concerns_us(RangeVarGetRelid(name, NoLock, true));
}

/* The table itself, or one that it is to inherit from. */
static bool
alters_ours(AlterTableStmt *statement)
{
	ListCell *cell;

	if (names_ours(statement->relation))
		return true;
	foreach (cell, statement->cmds)
	{
		auto *command = lfirst_node(AlterTableCmd, cell);

		if (command->subtype == AT_AddInherit && names_ours((RangeVar *) command->def))
			return true;
	}
	return false;
}

/*
 * Could the command drop tables of ours, change who belongs to a source or
 * stop triggers?  Statistics depend on their sources, and through their queries
 * on types, functions and the like, which go with CASCADE only.  Other commands
 * are not to wait for a fold, a filling or a refresh.
 */
static bool
may_disturb_maintenance(Node *command)
{
	if (IsA(command, AlterTableStmt))
		return alters_ours((AlterTableStmt *) command);
	if (IsA(command, DropOwnedStmt))
		return true;
	if (!IsA(command, DropStmt))
		return false;

	auto *drop = (DropStmt *) command;
	ListCell *cell;

	switch (drop->removeType)
	{
	case OBJECT_TABLE:
	case OBJECT_VIEW:
	case OBJECT_MATVIEW:
	case OBJECT_FOREIGN_TABLE:
	case OBJECT_INDEX:
	case OBJECT_SEQUENCE:
		foreach (cell, drop->objects)
			if (names_ours(makeRangeVarFromNameList(lfirst_node(List, cell))))
				return true;
		return false;
	case OBJECT_TRIGGER:
		foreach (cell, drop->objects)
		{
			List *name = lfirst_node(List, cell);

			if (list_length(name) > 1 &&
			    names_ours(makeRangeVarFromNameList(list_copy_head(name, list_length(name) - 1))))
				return true;
		}
		return false;
	case OBJECT_EXTENSION:
		return true;
	default:
		return drop->behavior == DROP_CASCADE;
	}
}

static bool
is_owner_of(Oid role, Oid class_id, Oid object)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(class_id, object, role);
#else
	return class_id == ExtensionRelationId ? pg_extension_ownercheck(object, role)
	                                       : pg_namespace_ownercheck(object, role);
#endif
}

static Oid
schema_of(Oid extension)
{
	Relation catalog = table_open(ExtensionRelationId, AccessShareLock);
	HeapTuple tuple = get_catalog_object_by_oid(catalog, Anum_pg_extension_oid, extension);
	Oid schema = HeapTupleIsValid(tuple)
	                 ? reinterpret_cast<Form_pg_extension>(GETSTRUCT(tuple))->extnamespace
	                 : InvalidOid;

	table_close(catalog, AccessShareLock);
	return schema;
}

/*
 * Could the command drop the extension, and with it the tables of deliveries?
 * Only for who may do so: the event comes before PostgreSQL asks that.
 */
static bool
may_drop_extension(Node *command)
{
	Oid extension = get_extension_oid("cache_ext", true);
	Oid schema = OidIsValid(extension) ? schema_of(extension) : InvalidOid;
	ListCell *cell;

	if (!OidIsValid(extension))
		return false;
	if (IsA(command, DropOwnedStmt))
	{
		foreach (cell, ((DropOwnedStmt *) command)->roles)
		{
			Oid role = get_rolespec_oid(lfirst_node(RoleSpec, cell), true);

			if (OidIsValid(role) && has_privs_of_role(GetUserId(), role) &&
			    (is_owner_of(role, ExtensionRelationId, extension) ||
			     is_owner_of(role, NamespaceRelationId, schema)))
				return true;
		}
		return false;
	}
	if (!IsA(command, DropStmt))
		return false;

	auto *drop = (DropStmt *) command;

	foreach (cell, drop->objects)
	{
		if (drop->removeType == OBJECT_EXTENSION)
		{
			Oid named = get_extension_oid(strVal(lfirst(cell)), true);

			if (OidIsValid(named) && is_owner_of(GetUserId(), ExtensionRelationId, named))
				return true;
		}
		else if (drop->removeType == OBJECT_SCHEMA)
		{
			if (get_namespace_oid(strVal(lfirst(cell)), true) == schema &&
			    is_owner_of(GetUserId(), NamespaceRelationId, schema))
				return true;
		}
	}
	return false;
}

/* What mends objects that do not fit the library must not be refused for that. */
static bool
is_about_extensions(CommandTag tag)
{
	return tag == CMDTAG_ALTER_EXTENSION || tag == CMDTAG_DROP_EXTENSION;
}

extern "C" {

PG_FUNCTION_INFO_V1(cache_ext_before_ddl);

Datum
cache_ext_before_ddl(PG_FUNCTION_ARGS)
{
	auto *event = pg::event_of(fcinfo, "before_ddl");

	pg::guard([&] {
		if (running_own_command() || pg::runs_own_script())
			return;
		if (!pg::objects_fit() && is_about_extensions(event->tag))
		{
			pg::hold_off_maintenance(true);
			return;
		}
		if (!OidIsValid(internal_relation("source", true)))
			return;
		if (IsA(event->parsetree, AlterTableStmt))
			refuse_concurrent_detach((AlterTableStmt *) event->parsetree);
		if (IsA(event->parsetree, RenameStmt))
			refuse_trigger_rename((RenameStmt *) event->parsetree);

		bool disturbs = may_disturb_maintenance(event->parsetree);
		if (disturbs)
			pg::hold_off_maintenance(may_drop_extension(event->parsetree));
		if (event->tag == CMDTAG_DROP_INDEX)
			note_index_drop((DropStmt *) event->parsetree);
		tie_before_drop(event->parsetree, disturbs);
	});
	PG_RETURN_POINTER(nullptr);
}
}

} /* namespace cache_ext::statistics */
