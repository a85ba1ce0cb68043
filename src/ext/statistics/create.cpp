/*-------------------------------------------------------------------------
 *
 * create.cpp
 *		Creating, filling, refreshing and dropping statistics.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/capture.hpp"
#include "ext/statistics/feed.hpp"
#include "ext/statistics/fold.hpp"
#include "ext/statistics/sides.hpp"
#include "ext/statistics/source_index.hpp"
#include "ext/statistics/sources.hpp"
#include "pg/guard.hpp"
#include "pg/maintenance_lock.hpp"
#include "pg/memory.hpp"

extern "C" {
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/view.h"
#include "nodes/makefuncs.h"
#include "rewrite/rewriteHandler.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"
}

namespace cache_ext::statistics {

/* Filling applies its sums whenever the netted rows take this much memory. */
constexpr size_t kFillBytes = 48 * 1024 * 1024;

/* ---- arguments ---- */

static text *
required_text(FunctionCallInfo fcinfo, int number, const char *name)
{
	if (PG_ARGISNULL(number))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
		                errmsg("argument \"%s\" must not be null", name)));
	return PG_GETARG_TEXT_PP(number);
}

Oid
required_relation(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
		                errmsg("argument \"relation\" must not be null")));
	return PG_GETARG_OID(0);
}

static void
refuse_concurrently(FunctionCallInfo fcinfo, int number)
{
	if (!PG_ARGISNULL(number) && PG_GETARG_BOOL(number))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		                errmsg("a statistic cannot be filled concurrently in this version"),
		                errhint("Call it with concurrently => false when writers can wait.")));
}

static void
require_fresh_snapshot(const char *what)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_TRANSACTION_STATE),
		         errmsg("%s cannot run in a REPEATABLE READ or SERIALIZABLE transaction", what),
		         errdetail("It needs rows that are newer than the transaction's snapshot."),
		         errhint("Run it in a READ COMMITTED transaction.")));
}

StatisticRow
statistic_of(Oid relation)
{
	StatisticRow row;

	if (!find_statistic_by_relation(relation, &row))
	{
		char *name = get_rel_name(relation);

		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
		                errmsg("\"%s\" is not a statistic", name ? name : "?"),
		                errhint("The view statistics_status lists the statistics.")));
	}
	return row;
}

static void
check_owner(const StatisticRow &row)
{
#if PG_VERSION_NUM >= 160000
	bool owner = object_ownercheck(RelationRelationId, row.relation, GetUserId());
#else
	bool owner = pg_class_ownercheck(row.relation, GetUserId());
#endif
	if (!owner)
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_VIEW, get_rel_name(row.relation));
}

/* ---- the query as a view ---- */

static RangeVar *
range_var(text *name)
{
#if PG_VERSION_NUM >= 160000
	List *names = stringToQualifiedNameList(text_to_cstring(name), nullptr);
#else
	List *names = stringToQualifiedNameList(text_to_cstring(name));
#endif
	return makeRangeVarFromNameList(names);
}

static RawStmt *
parse_query(const char *query)
{
	List *statements = pg_parse_query(query);

	if (list_length(statements) != 1)
		ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR),
		                errmsg("the query of a statistic must be one statement"),
		                errhint("Create a statistic for each query.")));

	auto *raw = linitial_node(RawStmt, statements);
	if (!IsA(raw->stmt, SelectStmt) || ((SelectStmt *) raw->stmt)->intoClause != nullptr)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		                errmsg("the query of a statistic must be a SELECT"),
		                errdetail("A statistic is a relation that equals its query."),
		                errhint("Pass the SELECT that the dashboard runs.")));
	return raw;
}

/* As the caller: names, privileges and dependencies are those of CREATE VIEW. */
static Oid
define_view(RangeVar *name, const char *query)
{
	RawStmt *raw = parse_query(query);
	ViewStmt *statement = makeNode(ViewStmt);

	statement->view = name;
	statement->query = raw->stmt;
	statement->withCheckOption = NO_CHECK_OPTION;
	ObjectAddress view = DefineView(statement, query, raw->stmt_location, raw->stmt_len);
	CommandCounterIncrement();
	return view.objectId;
}

static void
check_sources(List *sources)
{
	ListCell *cell;

	foreach (cell, sources)
	{
		AclResult result = pg_class_aclcheck(lfirst_oid(cell), GetUserId(), ACL_SELECT);

		if (result != ACLCHECK_OK)
			aclcheck_error(result, OBJECT_TABLE, get_rel_name(lfirst_oid(cell)));
	}
}

/* ---- tables ---- */

static void
append_column(StringInfo out, const char *prefix, int number, Oid type, Oid collation)
{
	appendStringInfo(out, "%s%s%d %s", out->len == 0 ? "" : ", ", prefix, number,
	                 format_type_extended(type, -1, FORMAT_TYPE_FORCE_QUALIFY));
	if (OidIsValid(collation))
		appendStringInfo(out, " COLLATE %s", generate_collation_name(collation));
}

static void
append_keys(StringInfo out, const KeyType *keys, int count)
{
	for (int i = 0; i < count; ++i)
		append_column(out, "k", i + 1, keys[i].type, keys[i].collation);
}

static void
append_cells(StringInfo out, const bool *is_sum, int count)
{
	for (int i = 0; i < count; ++i)
	{
		append_column(out, "c", i + 1, is_sum[i] ? NUMERICOID : INT8OID, InvalidOid);
		appendStringInfoString(out, " NOT NULL");
	}
}

static void
create_table(const char *name, StringInfo columns, int key_count, int fillfactor,
             const char *comment)
{
	StringInfoData keys;

	run("CREATE TABLE cache_ext_internal.%s (%s) WITH (fillfactor = %d)", name, columns->data,
	    fillfactor);
	run("COMMENT ON TABLE cache_ext_internal.%s IS '%s'", name, comment);
	if (key_count == 0)
		return;
	initStringInfo(&keys);
	for (int i = 0; i < key_count; ++i)
		appendStringInfo(&keys, "%sk%d", i == 0 ? "" : ", ", i + 1);
	run("CREATE UNIQUE INDEX %s_key ON cache_ext_internal.%s (%s) NULLS NOT DISTINCT", name, name,
	    keys.data);
}

static void
create_tables(const Definition *d, int32 id)
{
	constexpr int kTotalsFill = 40;
	constexpr int kPartFill = 90;
	char name[NAMEDATALEN];
	StringInfoData columns;

	initStringInfo(&columns);
	append_keys(&columns, d->groups, d->group_count);
	append_cells(&columns, d->cell_is_sum, d->cell_count);
	for (int i = 0; i < d->derived_count; ++i)
		append_column(&columns, "d", i + 1, d->derived[i].type, d->derived[i].collation);
	totals_name(id, name);
	create_table(name, &columns, d->group_count, kTotalsFill, "folded totals of a statistic");

	for (int i = 0; i < d->part_count; ++i)
	{
		Part &part = d->parts[i];

		part.by_index = OidIsValid(find_source_index(d, part));
		if (part.by_index)
			continue;
		resetStringInfo(&columns);
		append_keys(&columns, part.keys, part.key_count);
		append_cells(&columns, part.cell_is_sum, part.cell_count);
		part_name(id, i, name);
		create_table(name, &columns, part.key_count, kPartFill,
		             "folded values or join keys of a statistic");
	}
	create_side_indexes(d, id);
}

/* The foreign table with the columns of the query, and the view over it that users read. */
static void
create_relations(StatisticRow *row, const char *schema, const char *name)
{
	StringInfoData columns;
	StringInfoData names;
	Relation query = table_open(row->query, AccessShareLock);
	TupleDesc desc = RelationGetDescr(query);

	initStringInfo(&columns);
	initStringInfo(&names);
	for (int i = 0; i < desc->natts; ++i)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		appendStringInfo(
		    &columns, "%s%s %s", i == 0 ? "" : ", ", quote_identifier(NameStr(column->attname)),
		    format_type_extended(column->atttypid, column->atttypmod,
		                         FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
		if (OidIsValid(column->attcollation))
			appendStringInfo(&columns, " COLLATE %s",
			                 generate_collation_name(column->attcollation));
		appendStringInfo(&names, "%s%s", i == 0 ? "" : ", ",
		                 quote_identifier(NameStr(column->attname)));
	}
	table_close(query, NoLock);

	run("CREATE FOREIGN TABLE cache_ext_internal.state_%d (%s) SERVER cache_ext_state", row->id,
	    columns.data);
	/* Nobody can name it without USAGE on the schema; the view's owner, whoever it is, reads it. */
	run("GRANT SELECT ON cache_ext_internal.state_%d TO PUBLIC", row->id);
	row->state = internal_relation(psprintf("state_%d", row->id));

	run("CREATE VIEW %s AS SELECT %s FROM cache_ext_internal.state_%d",
	    quote_qualified_identifier(schema, name), names.data, row->id);
	row->relation = get_relname_relid(name, get_namespace_oid(schema, false));
}

static void
depend(Oid dependent, Oid on, DependencyType type)
{
	ObjectAddress from = {RelationRelationId, dependent, 0};
	ObjectAddress to = {RelationRelationId, on, 0};

	recordDependencyOn(&from, &to, type);
}

/*
 * Dropping the user's view drops everything; dropping a source or a used column
 * needs CASCADE (through the query's view) and then reaches the user's view.
 */
static void
record_dependencies(const StatisticRow &row, const Definition *d)
{
	char name[NAMEDATALEN];

	depend(row.state, row.query, DEPENDENCY_NORMAL);
	depend(row.query, row.relation, DEPENDENCY_AUTO);
	depend(row.state, row.relation, DEPENDENCY_AUTO);
	totals_name(row.id, name);
	depend(internal_relation(name), row.relation, DEPENDENCY_AUTO);
	for (int i = 0; i < d->part_count; ++i)
	{
		if (d->parts[i].by_index)
			continue;
		part_name(row.id, i, name);
		depend(internal_relation(name), row.relation, DEPENDENCY_AUTO);
	}
}

/* ---- filling ---- */

struct Filling
{
	Definition *definition;
	MemoryContext context;
};

static void
flush(Filling *filling, Delta *delta)
{
	MemoryContext caller = MemoryContextSwitchTo(filling->context);
	Pending *pending = make_pending(filling->definition, filling->context);

	/* A statistic without groups has a row even when its tables are empty. */
	if (filling->definition->group_count == 0)
		(void) key_cells(pending->totals, nullptr, nullptr, true);
	add_delta(pending, delta);
	pending->last_change = GetCurrentTimestamp();
	apply(pending, nullptr);
	delta->clear();
	MemoryContextSwitchTo(caller);
	MemoryContextReset(filling->context);
}

static void
fill_from(Filling *filling, Oid source, Oid member, Delta *delta, MemoryContext sums)
{
	Relation relation = table_open(member, AccessShareLock);
	MemoryContext caller = MemoryContextSwitchTo(sums);
	Capture *capture = compile_capture(relation, source, filling->definition->row.id);
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());

	feed_relation(capture, relation, delta, snapshot, 1, [&] {
		if (delta->bytes() > kFillBytes)
			flush(filling, delta);
	});
	UnregisterSnapshot(snapshot);
	flush(filling, delta);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(sums);
	table_close(relation, NoLock);
}

/* Adds all rows of the sources, whose writers are held off, to empty tables. */
static void
fill(Definition *definition)
{
	ListCell *cell;
	Filling filling = {definition, AllocSetContextCreate(CurrentMemoryContext, "cache_ext filling",
	                                                     ALLOCSET_DEFAULT_SIZES)};
	MemoryContext sums =
	    AllocSetContextCreate(CurrentMemoryContext, "cache_ext sums", ALLOCSET_DEFAULT_SIZES);
	Delta *delta = pg::make_in<Delta>(CurrentMemoryContext);

	foreach (cell, source_relations(definition))
	{
		ListCell *inner;
		List *members = find_all_inheritors(lfirst_oid(cell), NoLock, nullptr);

		foreach (inner, members)
			if (get_rel_relkind(lfirst_oid(inner)) != RELKIND_PARTITIONED_TABLE)
				fill_from(&filling, lfirst_oid(cell), lfirst_oid(inner), delta, sums);
	}
	flush(&filling, delta);
	MemoryContextDelete(filling.context);
	MemoryContextDelete(sums);
}

static void
hold_off_writers(List *sources)
{
	ListCell *cell;

	foreach (cell, sources)
	{
		LockRelationOid(lfirst_oid(cell), ShareRowExclusiveLock);
		(void) find_all_inheritors(lfirst_oid(cell), ShareRowExclusiveLock, nullptr);
	}
}

/* ---- the functions ---- */

static void
drop(const StatisticRow &row)
{
	pg::hold_off_maintenance();
	run("DROP VIEW %s", qualified_name(row.relation));
}

static void
drop_for_replacement(RangeVar *name)
{
	Oid existing = RangeVarGetRelid(name, NoLock, true);
	StatisticRow row;

	if (!OidIsValid(existing))
		return;
	if (!find_statistic_by_relation(existing, &row))
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
		                errmsg("\"%s\" is not a statistic", name->relname),
		                errhint("replace => true replaces statistics only.")));
	check_owner(row);
	drop(row);
}

Oid
relation_owner(Oid relation)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relation);
	Oid owner = reinterpret_cast<Form_pg_class>(GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

static Oid
create(RangeVar *name, const char *query, bool replace)
{
	ListCell *cell;
	StatisticRow row = {};
	Oid caller = GetUserId();

	require_fresh_snapshot("statistics_create()");
	if (replace)
		drop_for_replacement(name);
	row.query = define_view(name, query);

	char *schema = get_namespace_name(get_rel_namespace(row.query));
	char *relname = get_rel_name(row.query);
	Relation view = table_open(row.query, AccessShareLock);
	Definition *sketch = analyze(get_view_query(view), CurrentMemoryContext, true);
	List *sources = source_relations(sketch);
	table_close(view, NoLock);
	check_sources(sources);
	foreach (cell, sources)
		(void) ensure_source(lfirst_oid(cell));
	hold_off_writers(sources);

	AsOwner owner(internal_owner());
	row.id = next_number("statistic_id");
	run("ALTER VIEW %s RENAME TO cache_ext_query_%d", quote_qualified_identifier(schema, relname),
	    row.id);
	run("ALTER VIEW %s SET SCHEMA cache_ext_internal",
	    quote_qualified_identifier(schema, psprintf("cache_ext_query_%d", row.id)));
	create_tables(sketch, row.id);
	create_relations(&row, schema, relname);
	run("ALTER VIEW %s OWNER TO %s", quote_qualified_identifier(schema, relname),
	    quote_identifier(GetUserNameFromId(caller, false)));
	record_dependencies(row, sketch);

	insert_statistic(row);
	foreach (cell, sources)
	{
		SourceRow source;

		if (find_source_by_relation(lfirst_oid(cell), &source))
			insert_statistic_source(source.id, row.id);
		forget_compiled(lfirst_oid(cell));
	}
	CommandCounterIncrement();
	owner.restore();

	fill(definition_of(row.id));
	return row.relation;
}

static void
empty_tables(const Definition *d)
{
	char name[NAMEDATALEN];

	totals_name(d->row.id, name);
	run("DELETE FROM cache_ext_internal.%s", name);
	for (int i = 0; i < d->part_count; ++i)
	{
		if (d->parts[i].by_index)
			continue;
		part_name(d->row.id, i, name);
		run("DELETE FROM cache_ext_internal.%s", name);
	}
	run("DELETE FROM cache_ext_internal.progress WHERE statistic = %d", d->row.id);
	CommandCounterIncrement();
}

static List *
source_rows(int32 statistic)
{
	ListCell *cell;
	List *rows = NIL;

	foreach (cell, sources_of_statistic(statistic))
	{
		auto *row = static_cast<SourceRow *>(palloc(sizeof(SourceRow)));

		if (find_source(lfirst_int(cell), row))
			rows = lappend(rows, row);
	}
	return rows;
}

static void
refresh(const StatisticRow &row)
{
	Definition *definition = definition_of(row.id);

	require_fresh_snapshot("statistics_refresh()");
	check_owner(row);
	hold_off_writers(source_relations(definition));
	(void) pg::take_maintenance_lock(pg::Maintenance::kFolding, true);
	(void) fold_sources(source_rows(row.id));

	AsOwner internals(internal_owner());
	empty_tables(definition);
	internals.restore();

	/* Whoever refreshes it, expressions of the query run with its owner's rights. */
	AsOwner owner(relation_owner(row.query), SECURITY_RESTRICTED_OPERATION);
	fill(definition);
	owner.restore();
}

extern "C" {

PG_FUNCTION_INFO_V1(cache_ext_statistics_create);
PG_FUNCTION_INFO_V1(cache_ext_statistics_drop);
PG_FUNCTION_INFO_V1(cache_ext_statistics_refresh);
PG_FUNCTION_INFO_V1(cache_ext_statistics_fold);

Datum
cache_ext_statistics_create(PG_FUNCTION_ARGS)
{
	text *name = required_text(fcinfo, 0, "name");
	text *query = required_text(fcinfo, 1, "query");
	bool replace = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3);

	refuse_concurrently(fcinfo, 2);
	PG_RETURN_OID(
	    pg::guard([&] { return create(range_var(name), text_to_cstring(query), replace); }));
}

Datum
cache_ext_statistics_drop(PG_FUNCTION_ARGS)
{
	Oid relation = PG_GETARG_OID(0);

	pg::guard([&] {
		StatisticRow row = statistic_of(relation);

		check_owner(row);
		drop(row);
	});
	PG_RETURN_VOID();
}

Datum
cache_ext_statistics_refresh(PG_FUNCTION_ARGS)
{
	Oid relation = required_relation(fcinfo);

	refuse_concurrently(fcinfo, 1);
	pg::guard([&] { refresh(statistic_of(relation)); });
	PG_RETURN_VOID();
}

Datum
cache_ext_statistics_fold(PG_FUNCTION_ARGS)
{
	bool all = PG_ARGISNULL(0);
	Oid relation = all ? InvalidOid : PG_GETARG_OID(0);

	require_fresh_snapshot("statistics_fold()");
	PG_RETURN_INT64(pg::guard([&] {
		(void) pg::take_maintenance_lock(pg::Maintenance::kFolding, true);
		return fold_sources(all ? all_sources() : source_rows(statistic_of(relation).id));
	}));
}
}

} /* namespace cache_ext::statistics */
