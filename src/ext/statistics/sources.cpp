/*-------------------------------------------------------------------------
 *
 * sources.cpp
 *		Giving tables their triggers and logs, and small tools for commands.
 *
 * cache_ext_internal.leaf lists the partitions and inheritance children that
 * the statistics count; follow.cpp compares it with the tables as they are.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/sources.hpp"
#include "ext/statistics/capture.hpp"
#include "ext/statistics/triggers.hpp"
#include "pg/guard.hpp"
#include "pg/maintenance_lock.hpp"

extern "C" {
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
}

namespace cache_ext::statistics {

/* Commands of ours are running: what they alter needs no following. */
static int own_commands = 0;

bool
running_own_command()
{
	return own_commands > 0;
}

class OwnCommand
{
  public:
	OwnCommand() noexcept { ++own_commands; }
	~OwnCommand() { --own_commands; }
	OwnCommand(const OwnCommand &) = delete;
	OwnCommand &operator=(const OwnCommand &) = delete;
};

void
run(const char *format, ...)
{
	StringInfoData command;
	va_list arguments;

	initStringInfo(&command);
	for (;;)
	{
		va_start(arguments, format);
		int needed = appendStringInfoVA(&command, format, arguments);
		va_end(arguments);
		if (needed == 0)
			break;
		enlargeStringInfo(&command, needed);
	}

	OwnCommand own;
	pg::call([&] {
		PinnedSearchPath path;

		SPI_connect();
		if (SPI_execute(command.data, false, 0) < 0)
			elog(ERROR, "could not execute \"%s\"", command.data);
		SPI_finish();
		path.restore();
		pfree(command.data);
	});
}

char *
qualified_name(Oid relation)
{
	char *name = get_rel_name(relation);

	if (name == nullptr)
		elog(ERROR, "cache lookup failed for relation %u", relation);
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relation)), name);
}

void
select_as(Oid owner, const char *query)
{
	AsOwner internals(internal_owner());
	SPIPlanPtr plan = SPI_prepare(query, 0, nullptr);
	internals.restore();

	if (plan == nullptr)
		elog(ERROR, "could not prepare \"%s\"", query);

	AsOwner acting(owner, SECURITY_RESTRICTED_OPERATION);
	if (SPI_execute_plan(plan, nullptr, nullptr, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not execute \"%s\"", query);
	acting.restore();
}

PinnedSearchPath::PinnedSearchPath() : level_(NewGUCNestLevel())
{
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
	                         GUC_ACTION_SAVE, true, 0, false);
}

void
PinnedSearchPath::restore()
{
	AtEOXact_GUC(true, level_);
}

AsOwner::AsOwner(Oid owner, int restrictions)
{
	GetUserIdAndSecContext(&user_, &security_);
	SetUserIdAndSecContext(owner, security_ | SECURITY_LOCAL_USERID_CHANGE | restrictions);
}

void
AsOwner::restore()
{
	SetUserIdAndSecContext(user_, security_);
}

/* ---- tables of ours ---- */

/*
 * Members of the extension, so that a dump leaves them out: what they hold is
 * true of this database alone.
 */
void
own_table(Oid table)
{
	ObjectAddress from = {RelationRelationId, table, 0};
	ObjectAddress extension = {ExtensionRelationId, get_extension_oid("cache_ext", false), 0};

	recordDependencyOn(&from, &extension, DEPENDENCY_EXTENSION);
	CommandCounterIncrement();
}

/* pg_upgrade to 17 and later makes the row types of a member table members as well. */
static void
disown_type(Oid type)
{
	if (OidIsValid(type))
		(void) deleteDependencyRecordsForClass(TypeRelationId, type, ExtensionRelationId,
		                                       DEPENDENCY_EXTENSION);
}

void
drop_own_table(const char *name)
{
	Oid table = internal_relation(name, true);

	if (!OidIsValid(table))
		return;
	(void) deleteDependencyRecordsForClass(RelationRelationId, table, ExtensionRelationId,
	                                       DEPENDENCY_EXTENSION);
	disown_type(get_rel_type_id(table));
	disown_type(get_array_type(get_rel_type_id(table)));
	CommandCounterIncrement();
	run("DROP TABLE cache_ext_internal.%s", name);
}

/* ---- sources ---- */

static void
check_privilege(Oid relation)
{
	AclResult result = pg_class_aclcheck(relation, GetUserId(), ACL_TRIGGER);

	if (result != ACLCHECK_OK)
		aclcheck_error(result, get_relkind_objtype(get_rel_relkind(relation)),
		               get_rel_name(relation));
}

static Oid
create_log(int32 id)
{
	char name[NAMEDATALEN];

	log_name(id, name);
	run("CREATE TABLE cache_ext_internal.%s (at timestamptz NOT NULL, delta bytea NOT NULL, us "
	    "real NOT NULL) "
	    "WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0)",
	    name);
	run("ALTER TABLE cache_ext_internal.%s ALTER delta SET STORAGE PLAIN, REPLICA IDENTITY FULL",
	    name);
	run("COMMENT ON TABLE cache_ext_internal.%s IS 'partial rows of a source, not yet folded'",
	    name);
	own_table(internal_relation(name));
	return internal_relation(name);
}

/* A row of a table that belonged to two sources would have to be counted in both. */
static void
refuse_second_source(Oid relation)
{
	SourceRow source;
	int32 number;

	if (find_leaf(relation, &number) && find_source(number, &source))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		                errmsg("table \"%s\" already belongs to \"%s\"", get_rel_name(relation),
		                       get_rel_name(source.relation)),
		                errdetail("Statistics or watches read that table with its partitions and "
		                          "inheritance children."),
		                errhint("Read \"%s\", with a condition that selects the rows.",
		                        get_rel_name(source.relation))));
}

void
add_member(const SourceRow &source, Oid member)
{
	SourceRow other;

	check_generated(source.relation, member);
	create_member_triggers(member);
	forget_compiled(member);
	if (member == source.relation || get_rel_relkind(member) == RELKIND_PARTITIONED_TABLE)
		return;
	refuse_second_source(member);
	if (find_source_by_relation(member, &other))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		                errmsg("table \"%s\" cannot belong to \"%s\"", get_rel_name(member),
		                       get_rel_name(source.relation)),
		                errdetail("Statistics or watches read both, and a row is counted once."),
		                errhint("Drop the statistics and watches of \"%s\" first.",
		                        get_rel_name(member))));
	insert_leaf(member, source.id);
}

int32
ensure_source(Oid relation)
{
	SourceRow source;
	ListCell *cell;

	check_privilege(relation);
	if (find_source_by_relation(relation, &source))
		return source.id;
	refuse_second_source(relation);

	AsOwner owner(internal_owner());
	LockRelationOid(relation, ShareRowExclusiveLock);
	List *members = find_all_inheritors(relation, ShareRowExclusiveLock, nullptr);

	source.id = next_number("source_id");
	source.relation = relation;
	source.log = create_log(source.id);
	insert_source(source);
	foreach (cell, members)
		add_member(source, lfirst_oid(cell));
	owner.restore();
	CommandCounterIncrement();
	return source.id;
}

static bool
has_watches(Oid relation)
{
	bool found;
	PinnedSearchPath path;

	SPI_connect();
	if (SPI_execute(psprintf("SELECT FROM cache_ext_internal.watch WHERE relation = %u", relation),
	                false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read watches");
	found = SPI_processed > 0;
	SPI_finish();
	path.restore();
	return found;
}

bool
relation_exists(Oid relation)
{
	return SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relation));
}

bool
lock_existing(Oid relation, LOCKMODE mode)
{
	LockRelationOid(relation, mode);
	if (relation_exists(relation))
		return true;
	UnlockRelationOid(relation, mode);
	return false;
}

void
release_source(Oid relation)
{
	SourceRow source;
	ListCell *cell;
	char name[NAMEDATALEN];

	if (!find_source_by_relation(relation, &source) || statistics_of_source(source.id) != NIL)
		return;

	AsOwner owner(internal_owner());
	if (relation_exists(relation))
	{
		if (has_watches(relation))
		{
			owner.restore();
			return;
		}
		LockRelationOid(relation, ShareRowExclusiveLock);
		List *members = find_all_inheritors(relation, ShareRowExclusiveLock, nullptr);

		foreach (cell, members)
			drop_member_triggers(lfirst_oid(cell));
		forget_compiled(relation);
	}
	pg::hold_off_maintenance();
	log_name(source.id, name);
	drop_own_table(name);
	delete_source(source.id);
	owner.restore();
}

} /* namespace cache_ext::statistics */
