/*-------------------------------------------------------------------------
 *
 * ties.cpp
 *		See ties.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/ties.hpp"
#include "ext/statistics/restore.hpp"
#include "ext/statistics/sources.hpp"

extern "C" {
#include "access/genam.h"
#include "access/skey.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "nodes/makefuncs.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
}

namespace cache_ext::statistics {

static void
depend(Oid dependent, Oid on, DependencyType type)
{
	ObjectAddress from = {RelationRelationId, dependent, 0};
	ObjectAddress to = {RelationRelationId, on, 0};

	recordDependencyOn(&from, &to, type);
}

void
tie_together(const StatisticRow &row)
{
	depend(row.state, row.query, DEPENDENCY_NORMAL);
}

static bool
are_tied(const StatisticRow &row)
{
	Relation catalog = table_open(DependRelationId, AccessShareLock);
	ScanKeyData keys[2];
	bool found = false;

	ScanKeyInit(&keys[0], Anum_pg_depend_classid, BTEqualStrategyNumber, F_OIDEQ,
	            ObjectIdGetDatum(RelationRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_objid, BTEqualStrategyNumber, F_OIDEQ,
	            ObjectIdGetDatum(row.state));
	SysScanDesc scan = systable_beginscan(catalog, DependDependerIndexId, true, nullptr, 2, keys);
	while (HeapTuple tuple = systable_getnext(scan))
	{
		auto *form = reinterpret_cast<Form_pg_depend>(GETSTRUCT(tuple));

		found = found || (form->refclassid == RelationRelationId && form->refobjid == row.query);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return found;
}

/* ---- which statistics a command is about ---- */

/* What a command names: relations, schemas or roles. */
struct Named
{
	bool all;
	List *relations;
	List *schemas;
	List *owners;
};

static void
add_relation(Named *named, RangeVar *name)
{
	Oid relation = RangeVarGetRelid(name, NoLock, true);

	if (OidIsValid(relation))
		named->relations = lappend_oid(named->relations, relation);
}

static Named
named_by(Node *command)
{
	Named named = {};
	ListCell *cell;

	if (IsA(command, AlterTableStmt))
		add_relation(&named, ((AlterTableStmt *) command)->relation);
	else if (IsA(command, DropOwnedStmt))
		foreach (cell, ((DropOwnedStmt *) command)->roles)
			named.owners =
			    lappend_oid(named.owners, get_rolespec_oid(lfirst_node(RoleSpec, cell), true));
	else if (IsA(command, DropStmt))
		switch (auto *drop = (DropStmt *) command; drop->removeType)
		{
		case OBJECT_TABLE:
		case OBJECT_VIEW:
		case OBJECT_MATVIEW:
		case OBJECT_FOREIGN_TABLE:
			foreach (cell, drop->objects)
				add_relation(&named, makeRangeVarFromNameList(lfirst_node(List, cell)));
			break;
		case OBJECT_SCHEMA:
			foreach (cell, drop->objects)
				named.schemas =
				    lappend_oid(named.schemas, get_namespace_oid(strVal(lfirst(cell)), true));
			break;
		case OBJECT_EXTENSION:
			named.all = true;
			break;
		default:
			break;
		}
	return named;
}

static bool
names_relation(const Named &named, Oid relation)
{
	Oid schema = get_rel_namespace(relation);

	return list_member_oid(named.relations, relation) ||
	       (OidIsValid(schema) && list_member_oid(named.schemas, schema));
}

static Oid
owner_if_there(Oid relation)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	Oid owner = reinterpret_cast<Form_pg_class>(GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

static bool
is_about(const Named &named, const StatisticRow &row)
{
	ListCell *cell;

	if (!relation_exists(row.relation) || !relation_exists(row.query) ||
	    !relation_exists(row.state))
		return false;
	if (named.all || names_relation(named, row.relation) || names_relation(named, row.query) ||
	    names_relation(named, row.state) ||
	    list_member_oid(named.owners, owner_if_there(row.relation)))
		return true;
	foreach (cell, sources_of_statistic(row.id))
	{
		SourceRow source;

		if (find_source(lfirst_int(cell), &source) &&
		    (names_relation(named, source.relation) ||
		     list_member_oid(named.owners, owner_if_there(source.relation))))
			return true;
	}
	return false;
}

/* ---- before and after ---- */

static void
tie_for_drop(const StatisticRow &row)
{
	ObjectAddress relation = {RelationRelationId, row.relation, 0};
	ObjectAddress query = {RelationRelationId, row.query, 0};
	ObjectAddress state = {RelationRelationId, row.state, 0};

	recordDependencyOn(&query, &relation, DEPENDENCY_AUTO);
	recordDependencyOn(&state, &relation, DEPENDENCY_AUTO);
}

void
tie_before_drop(Node *command, bool concerned)
{
	ListCell *cell;
	bool drops = IsA(command, DropStmt) || IsA(command, DropOwnedStmt);
	bool drops_views =
	    IsA(command, DropOwnedStmt) ||
	    (IsA(command, DropStmt) && (((DropStmt *) command)->removeType == OBJECT_VIEW ||
	                                ((DropStmt *) command)->behavior == DROP_CASCADE));

	/* DROP INDEX CONCURRENTLY drops no view, and refuses a transaction that has written. */
	if (IsA(command, DropStmt) && ((DropStmt *) command)->concurrent)
		return;
	if (drops_views)
		foreach (cell, restored_statistics())
		{
			auto *row = static_cast<StatisticRow *>(lfirst(cell));

			tie_together(*row);
			tie_for_drop(*row);
		}
	if (concerned)
	{
		Named named = named_by(command);

		foreach (cell, all_statistics())
		{
			auto *row = static_cast<StatisticRow *>(lfirst(cell));

			if (!is_about(named, *row))
				continue;
			if (!are_tied(*row)) /* pg_upgrade has left it behind */
				tie_together(*row);
			if (drops)
				tie_for_drop(*row);
		}
	}
	CommandCounterIncrement();
}

void
untie_after_drop()
{
	ListCell *cell;

	foreach (cell, all_statistics())
	{
		auto *row = static_cast<StatisticRow *>(lfirst(cell));

		(void) deleteDependencyRecordsForClass(RelationRelationId, row->query, RelationRelationId,
		                                       DEPENDENCY_AUTO);
		(void) deleteDependencyRecordsForClass(RelationRelationId, row->state, RelationRelationId,
		                                       DEPENDENCY_AUTO);
	}
}

} /* namespace cache_ext::statistics */
