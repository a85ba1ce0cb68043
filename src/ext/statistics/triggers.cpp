/*-------------------------------------------------------------------------
 *
 * triggers.cpp
 *		See triggers.hpp.
 *
 * Every member of a partition or inheritance tree has the statement triggers,
 * because a statement fires those of the relation it names; every member with
 * rows has the TRUNCATE trigger and the row trigger for replication, which the
 * server clones from a partitioned table to its partitions.
 *
 *-------------------------------------------------------------------------
 */
#include <algorithm>
#include <iterator>

#include "ext/statistics/triggers.hpp"
#include "ext/statistics/sources.hpp"

extern "C" {
#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "commands/trigger.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/reltrigger.h"
#include "utils/syscache.h"
}

namespace cache_ext::statistics {

/* The names sort before what people usually call their triggers, which then see exact statistics.
 */
#define TRIGGER_INSERT "0_cache_ext_insert"
#define TRIGGER_UPDATE "0_cache_ext_update"
#define TRIGGER_DELETE "0_cache_ext_delete"
#define TRIGGER_REPLICA "0_cache_ext_replica"
#define TRIGGER_TRUNCATE "0_cache_ext_truncate"

/* A trigger of ours, when it must fire, and the command that makes it do so. */
struct OwnTrigger
{
	const char *name;
	char mode;
	const char *enable;
	bool rows_only; /* not on a partitioned table */
};

constexpr OwnTrigger kTriggers[] = {
    {TRIGGER_INSERT, TRIGGER_FIRES_ON_ORIGIN, "ENABLE", false},
    {TRIGGER_UPDATE, TRIGGER_FIRES_ON_ORIGIN, "ENABLE", false},
    {TRIGGER_DELETE, TRIGGER_FIRES_ON_ORIGIN, "ENABLE", false},
    {TRIGGER_TRUNCATE, TRIGGER_FIRES_ALWAYS, "ENABLE ALWAYS", true},
    {TRIGGER_REPLICA, TRIGGER_FIRES_ON_REPLICA, "ENABLE REPLICA", false},
};

static bool
has_trigger(Oid relation, const char *name)
{
	return OidIsValid(get_trigger_oid(relation, name, true));
}

static void
create_statement_triggers(Oid relation, const char *name)
{
	if (!has_trigger(relation, TRIGGER_INSERT))
		run("CREATE TRIGGER \"" TRIGGER_INSERT "\" AFTER INSERT ON %s "
		    "REFERENCING NEW TABLE AS cache_ext_new "
		    "FOR EACH STATEMENT EXECUTE FUNCTION cache_ext_internal.capture_statement()",
		    name);
	if (!has_trigger(relation, TRIGGER_UPDATE))
		run("CREATE TRIGGER \"" TRIGGER_UPDATE "\" AFTER UPDATE ON %s "
		    "REFERENCING OLD TABLE AS cache_ext_old NEW TABLE AS cache_ext_new "
		    "FOR EACH STATEMENT EXECUTE FUNCTION cache_ext_internal.capture_statement()",
		    name);
	if (!has_trigger(relation, TRIGGER_DELETE))
		run("CREATE TRIGGER \"" TRIGGER_DELETE "\" AFTER DELETE ON %s "
		    "REFERENCING OLD TABLE AS cache_ext_old "
		    "FOR EACH STATEMENT EXECUTE FUNCTION cache_ext_internal.capture_statement()",
		    name);
}

void
create_member_triggers(Oid member)
{
	char *name = qualified_name(member);

	create_statement_triggers(member, name);
	if (get_rel_relkind(member) != RELKIND_PARTITIONED_TABLE &&
	    !has_trigger(member, TRIGGER_TRUNCATE))
	{
		run("CREATE TRIGGER \"" TRIGGER_TRUNCATE "\" BEFORE TRUNCATE ON %s "
		    "FOR EACH STATEMENT EXECUTE FUNCTION cache_ext_internal.capture_truncate()",
		    name);
		run("ALTER TABLE %s ENABLE ALWAYS TRIGGER \"" TRIGGER_TRUNCATE "\"", name);
	}
	if (!has_trigger(member, TRIGGER_REPLICA))
	{
		run("CREATE TRIGGER \"" TRIGGER_REPLICA "\" AFTER INSERT OR UPDATE OR DELETE ON %s "
		    "FOR EACH ROW EXECUTE FUNCTION cache_ext_internal.capture_row()",
		    name);
		run("ALTER TABLE %s ENABLE REPLICA TRIGGER \"" TRIGGER_REPLICA "\"", name);
	}
}

/* A partition's clone of the row trigger goes with the original, or was let go by DETACH. */
void
drop_member_triggers(Oid member)
{
	bool has_clone = get_rel_relispartition(member);
	char *name = qualified_name(member);

	for (const OwnTrigger &own : kTriggers)
		if (has_trigger(member, own.name) && !(has_clone && own.mode == TRIGGER_FIRES_ON_REPLICA))
			run("DROP TRIGGER \"%s\" ON %s", own.name, name);
}

/* The mode of a trigger, or '\0' when there is none, nor maybe the relation. */
static char
mode_of(Oid relation, const char *trigger)
{
	Relation table = try_relation_open(relation, AccessShareLock);
	if (table == nullptr)
		return '\0';

	TriggerDesc *triggers = table->trigdesc;
	char mode = '\0';

	for (int i = 0; triggers != nullptr && i < triggers->numtriggers; ++i)
		if (strcmp(triggers->triggers[i].tgname, trigger) == 0)
			mode = triggers->triggers[i].tgenabled;
	relation_close(table, NoLock);
	return mode;
}

static bool
applies(const OwnTrigger &own, Oid member)
{
	return !own.rows_only || get_rel_relkind(member) != RELKIND_PARTITIONED_TABLE;
}

void
mend_member_triggers(Oid member, bool disabled_too)
{
	for (const OwnTrigger &own : kTriggers)
	{
		char mode = applies(own, member) ? mode_of(member, own.name) : '\0';

		if (mode == '\0' || mode == own.mode || (mode == TRIGGER_DISABLED && !disabled_too))
			continue;
		run("ALTER TABLE %s %s TRIGGER \"%s\"", qualified_name(member), own.enable, own.name);
	}
}

bool
has_capture_trigger(Oid relation)
{
	return has_trigger(relation, TRIGGER_INSERT);
}

bool
is_hidden_from_triggers(Oid relation, AttrNumber column)
{
	HeapTuple tuple = SearchSysCache2(ATTNUM, ObjectIdGetDatum(relation), Int16GetDatum(column));

	if (!HeapTupleIsValid(tuple))
		return false;

	char generated = reinterpret_cast<Form_pg_attribute>(GETSTRUCT(tuple))->attgenerated;

	ReleaseSysCache(tuple);
	return generated != '\0' && (generated != ATTRIBUTE_GENERATED_STORED ||
	                             get_rel_relkind(relation) == RELKIND_PARTITIONED_TABLE);
}

void
check_generated(Oid parent, Oid member)
{
	if (!get_rel_relispartition(member))
		return;

	Relation partition = relation_open(member, AccessShareLock);
	for (int i = 0; i < RelationGetNumberOfAttributes(partition); ++i)
	{
		Form_pg_attribute column = TupleDescAttr(RelationGetDescr(partition), i);

		if (column->attisdropped || column->attgenerated == '\0' ||
		    is_hidden_from_triggers(parent, get_attnum(parent, NameStr(column->attname))))
			continue;
		ereport(ERROR,
		        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		         errmsg("partition \"%s\" cannot generate column \"%s\", which \"%s\" does not",
		                RelationGetRelationName(partition), NameStr(column->attname),
		                get_rel_name(parent)),
		         errdetail("A statistic or watch reads the table, and PostgreSQL shows triggers "
		                   "its rows without the value."),
		         errhint("Let the whole table generate the column, or none of it.")));
	}
	relation_close(partition, NoLock);
}

bool
is_capture_trigger(const char *name)
{
	return std::any_of(std::begin(kTriggers), std::end(kTriggers),
	                   [name](const OwnTrigger &own) { return strcmp(own.name, name) == 0; });
}

char *
trigger_trouble(Oid source)
{
	ListCell *cell;

	foreach (cell, find_all_inheritors(source, AccessShareLock, nullptr))
		for (const OwnTrigger &own : kTriggers)
			if (applies(own, lfirst_oid(cell)) && mode_of(lfirst_oid(cell), own.name) != own.mode &&
			    relation_exists(lfirst_oid(cell)))
				return psprintf("trigger \"%s\" of table %s is missing or disabled", own.name,
				                qualified_name(lfirst_oid(cell)));
	return nullptr;
}

} /* namespace cache_ext::statistics */
