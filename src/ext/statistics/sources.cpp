/*-------------------------------------------------------------------------
 *
 * sources.cpp
 *		Giving tables their triggers and logs, and following their partitions.
 *
 * Every member of a partition tree has the statement triggers, because a
 * statement fires those of the relation it names; every leaf has the TRUNCATE
 * trigger; the row trigger for replication is cloned to partitions by the
 * server.  cache_ext_internal.leaf lists the leaves that the statistics count.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/capture.hpp"
#include "ext/statistics/feed.hpp"
#include "ext/statistics/sources.hpp"
#include "pg/guard.hpp"
#include "pg/maintenance_lock.hpp"

extern "C" {
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "commands/event_trigger.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
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

/* Commands of ours are running: what they alter needs no following. */
static int own_commands = 0;

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
		SPI_connect();
		if (SPI_execute(command.data, false, 0) < 0)
			elog(ERROR, "could not execute \"%s\"", command.data);
		SPI_finish();
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

/* ---- triggers ---- */

static bool
is_partitioned(Oid relation)
{
	return get_rel_relkind(relation) == RELKIND_PARTITIONED_TABLE;
}

static bool
has_trigger(Oid relation, const char *name)
{
	return OidIsValid(get_trigger_oid(relation, name, true));
}

static void
create_statement_triggers(Oid relation)
{
	char *name = qualified_name(relation);

	if (has_trigger(relation, TRIGGER_INSERT))
		return;
	run("CREATE TRIGGER \"" TRIGGER_INSERT "\" AFTER INSERT ON %s "
	    "REFERENCING NEW TABLE AS cache_ext_new "
	    "FOR EACH STATEMENT EXECUTE FUNCTION cache_ext_internal.capture_statement()",
	    name);
	run("CREATE TRIGGER \"" TRIGGER_UPDATE "\" AFTER UPDATE ON %s "
	    "REFERENCING OLD TABLE AS cache_ext_old NEW TABLE AS cache_ext_new "
	    "FOR EACH STATEMENT EXECUTE FUNCTION cache_ext_internal.capture_statement()",
	    name);
	run("CREATE TRIGGER \"" TRIGGER_DELETE "\" AFTER DELETE ON %s "
	    "REFERENCING OLD TABLE AS cache_ext_old "
	    "FOR EACH STATEMENT EXECUTE FUNCTION cache_ext_internal.capture_statement()",
	    name);
}

static void
create_leaf_triggers(Oid relation)
{
	char *name = qualified_name(relation);

	if (has_trigger(relation, TRIGGER_TRUNCATE))
		return;
	run("CREATE TRIGGER \"" TRIGGER_TRUNCATE "\" BEFORE TRUNCATE ON %s "
	    "FOR EACH STATEMENT EXECUTE FUNCTION cache_ext_internal.capture_truncate()",
	    name);
	run("ALTER TABLE %s ENABLE ALWAYS TRIGGER \"" TRIGGER_TRUNCATE "\"", name);
}

static void
create_replica_trigger(Oid root)
{
	char *name = qualified_name(root);

	if (has_trigger(root, TRIGGER_REPLICA))
		return;
	run("CREATE TRIGGER \"" TRIGGER_REPLICA "\" AFTER INSERT OR UPDATE OR DELETE ON %s "
	    "FOR EACH ROW EXECUTE FUNCTION cache_ext_internal.capture_row()",
	    name);
	run("ALTER TABLE %s ENABLE REPLICA TRIGGER \"" TRIGGER_REPLICA "\"", name);
}

static void
drop_triggers(Oid relation, bool is_root)
{
	static const char *const own[] = {TRIGGER_INSERT, TRIGGER_UPDATE, TRIGGER_DELETE,
	                                  TRIGGER_TRUNCATE};
	char *name = qualified_name(relation);

	for (const char *trigger : own)
		if (has_trigger(relation, trigger))
			run("DROP TRIGGER \"%s\" ON %s", trigger, name);
	if (is_root && has_trigger(relation, TRIGGER_REPLICA))
		run("DROP TRIGGER \"" TRIGGER_REPLICA "\" ON %s", name);
}

static void
create_member_triggers(Oid relation)
{
	create_statement_triggers(relation);
	if (!is_partitioned(relation))
		create_leaf_triggers(relation);
}

static bool
fires(Oid relation, const char *trigger, char mode)
{
	Relation table = table_open(relation, AccessShareLock);
	TriggerDesc *triggers = table->trigdesc;
	bool found = false;

	for (int i = 0; triggers != nullptr && i < triggers->numtriggers; ++i)
		found = found || (strcmp(triggers->triggers[i].tgname, trigger) == 0 &&
		                  triggers->triggers[i].tgenabled == mode);
	table_close(table, NoLock);
	return found;
}

char *
trigger_trouble(Oid source)
{
	ListCell *cell;

	foreach (cell, find_all_inheritors(source, AccessShareLock, nullptr))
	{
		Oid member = lfirst_oid(cell);
		const char *trouble = nullptr;

		if (!fires(member, TRIGGER_INSERT, TRIGGER_FIRES_ON_ORIGIN))
			trouble = TRIGGER_INSERT;
		else if (!fires(member, TRIGGER_UPDATE, TRIGGER_FIRES_ON_ORIGIN))
			trouble = TRIGGER_UPDATE;
		else if (!fires(member, TRIGGER_DELETE, TRIGGER_FIRES_ON_ORIGIN))
			trouble = TRIGGER_DELETE;
		else if (!is_partitioned(member) && !fires(member, TRIGGER_TRUNCATE, TRIGGER_FIRES_ALWAYS))
			trouble = TRIGGER_TRUNCATE;
		else if (!fires(member, TRIGGER_REPLICA, TRIGGER_FIRES_ON_REPLICA))
			trouble = TRIGGER_REPLICA;
		if (trouble != nullptr)
			return psprintf("trigger \"%s\" of table %s is missing, disabled or in another mode",
			                trouble, qualified_name(member));
	}
	return nullptr;
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

	snprintf(name, sizeof(name), "log_%d", id);
	run("CREATE TABLE cache_ext_internal.%s (at timestamptz NOT NULL, delta bytea NOT NULL) "
	    "WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0)",
	    name);
	run("ALTER TABLE cache_ext_internal.%s ALTER delta SET STORAGE PLAIN, REPLICA IDENTITY FULL",
	    name);
	run("COMMENT ON TABLE cache_ext_internal.%s IS 'partial rows of a source, not yet folded'",
	    name);
	return internal_relation(name);
}

int32
ensure_source(Oid relation)
{
	SourceRow source;
	ListCell *cell;

	check_privilege(relation);
	if (find_source_by_relation(relation, &source))
		return source.id;

	AsOwner owner(internal_owner());
	LockRelationOid(relation, ShareRowExclusiveLock);
	List *members = find_all_inheritors(relation, ShareRowExclusiveLock, nullptr);

	source.id = next_number("source_id");
	source.relation = relation;
	source.log = create_log(source.id);
	insert_source(source);
	foreach (cell, members)
	{
		Oid member = lfirst_oid(cell);

		create_member_triggers(member);
		if (member != relation && !is_partitioned(member))
			insert_leaf(member, source.id);
	}
	create_replica_trigger(relation);
	owner.restore();
	forget_compiled(relation);
	CommandCounterIncrement();
	return source.id;
}

static bool
has_watches(Oid relation)
{
	bool found;

	SPI_connect();
	if (SPI_execute(psprintf("SELECT FROM cache_ext_internal.watch WHERE relation = %u", relation),
	                false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read watches");
	found = SPI_processed > 0;
	SPI_finish();
	return found;
}

static bool
relation_exists(Oid relation)
{
	return SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relation));
}

void
release_source(Oid relation)
{
	SourceRow source;
	ListCell *cell;

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
			drop_triggers(lfirst_oid(cell), lfirst_oid(cell) == relation);
		forget_compiled(relation);
	}
	pg::hold_off_maintenance();
	if (relation_exists(source.log))
		run("DROP TABLE %s", qualified_name(source.log));
	delete_source(source.id);
	owner.restore();
}

/* ---- partitions that come and go ---- */

static bool
is_member(List *members, Oid relation)
{
	return list_member_oid(members, relation);
}

/* A new leaf brings its rows into the statistics. */
static void
adopt_leaf(const SourceRow &source, Oid leaf)
{
	Relation relation = table_open(leaf, AccessShareLock);

	insert_leaf(leaf, source.id);
	forget_compiled(leaf);
	CommandCounterIncrement();
	append_relation(compile_capture(relation, source.relation), relation, 1);
	table_close(relation, NoLock);
}

/* A detached leaf takes its rows away. */
static void
release_leaf(const SourceRow &source, Oid leaf)
{
	Relation relation = table_open(leaf, AccessShareLock);

	append_relation(compile_capture(relation, source.relation), relation, -1);
	table_close(relation, NoLock);
	drop_triggers(leaf, true);
	delete_leaf(leaf);
	forget_compiled(leaf);
}

static void
refuse_inheritance(const SourceRow &source)
{
	if (!is_partitioned(source.relation) &&
	    find_inheritance_children(source.relation, NoLock) != NIL)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		                errmsg("table \"%s\" cannot have inheritance children",
		                       get_rel_name(source.relation)),
		                errdetail("A statistic or watch reads it, and changes to a child fire no "
		                          "trigger of the parent."),
		                errhint("Use partitioning, or drop the statistics and watches first.")));
	if (get_rel_relispartition(source.relation))
		ereport(ERROR,
		        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		         errmsg("table \"%s\" cannot become a partition", get_rel_name(source.relation)),
		         errdetail("A statistic or watch reads it, and rows that reach it through "
		                   "a parent would not be seen."),
		         errhint("Drop the statistics and watches first, and create them on the "
		                 "partitioned table.")));
}

static void
follow_partitions(const SourceRow &source)
{
	ListCell *cell;

	refuse_inheritance(source);
	if (!is_partitioned(source.relation))
		return;

	List *members = find_all_inheritors(source.relation, AccessShareLock, nullptr);
	List *known = leaves_of_source(source.id);

	foreach (cell, known)
		if (!is_member(members, lfirst_oid(cell)) && relation_exists(lfirst_oid(cell)))
			release_leaf(source, lfirst_oid(cell));
	foreach (cell, members)
	{
		Oid member = lfirst_oid(cell);

		create_member_triggers(member);
		if (!is_partitioned(member) && !is_member(known, member))
			adopt_leaf(source, member);
	}
}

static void
follow_all_partitions()
{
	ListCell *cell;
	AsOwner owner(internal_owner());

	foreach (cell, all_sources())
	{
		auto *source = static_cast<SourceRow *>(lfirst(cell));

		if (relation_exists(source->relation))
			follow_partitions(*source);
	}
	owner.restore();
}

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
		Oid root = get_rel_relispartition(relation) ? llast_oid(get_partition_ancestors(relation))
		                                            : relation;
		if (find_source_by_relation(root, &source))
			ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			                errmsg("cannot detach a partition of \"%s\" concurrently",
			                       get_rel_name(relation)),
			                errdetail("Statistics or watches read the table, and could not follow "
			                          "in the same transaction."),
			                errhint("Use DETACH PARTITION without CONCURRENTLY.")));
	}
}

/* Is it a statistic, a source or a member of one, or an internal? */
static bool
concerns_us(Oid relation)
{
	StatisticRow statistic;
	SourceRow source;

	if (!OidIsValid(relation))
		return false;
	if (get_rel_namespace(relation) == get_namespace_oid(kInternalSchema, true) ||
	    find_statistic_by_relation(relation, &statistic))
		return true;

	Oid root =
	    get_rel_relispartition(relation) ? llast_oid(get_partition_ancestors(relation)) : relation;
	return find_source_by_relation(root, &source);
}

/*
 * Could the command drop tables of ours?  Statistics depend on their sources,
 * and through their queries on types, functions and the like, which go with
 * CASCADE only.  Other commands are not to wait for a fold or a refresh.
 */
static bool
may_drop_ours(Node *command)
{
	if (IsA(command, AlterTableStmt))
		return concerns_us(RangeVarGetRelid(((AlterTableStmt *) command)->relation, NoLock, true));
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
			if (concerns_us(RangeVarGetRelid(makeRangeVarFromNameList(lfirst_node(List, cell)),
			                                 NoLock, true)))
				return true;
		return false;
	case OBJECT_EXTENSION:
		return true;
	default:
		return drop->behavior == DROP_CASCADE;
	}
}

extern "C" {

PG_FUNCTION_INFO_V1(cache_ext_on_alter);
PG_FUNCTION_INFO_V1(cache_ext_before_ddl);

Datum
cache_ext_before_ddl(PG_FUNCTION_ARGS)
{
	auto *event = reinterpret_cast<EventTriggerData *>(fcinfo->context);

	pg::guard([&] {
		if (own_commands > 0 || !OidIsValid(internal_relation("source", true)))
			return;
		if (IsA(event->parsetree, AlterTableStmt))
			refuse_concurrent_detach((AlterTableStmt *) event->parsetree);
		if (may_drop_ours(event->parsetree))
			pg::hold_off_maintenance(event->tag == CMDTAG_DROP_EXTENSION ||
			                         event->tag == CMDTAG_DROP_SCHEMA ||
			                         event->tag == CMDTAG_DROP_OWNED);
	});
	PG_RETURN_POINTER(nullptr);
}

Datum
cache_ext_on_alter(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	pg::guard([&] {
		if (own_commands == 0 && OidIsValid(internal_relation("source", true)))
			follow_all_partitions();
	});
	PG_RETURN_POINTER(nullptr);
}
}

} /* namespace cache_ext::statistics */
