/*-------------------------------------------------------------------------
 *
 * relations.cpp
 *		The relations of a statistic: the tables that keep its state, the foreign
 *		table that reads it and the view over that.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/relations.hpp"
#include "ext/statistics/capture.hpp"
#include "ext/statistics/fill.hpp"
#include "ext/statistics/sides.hpp"
#include "ext/statistics/source_index.hpp"
#include "ext/statistics/sources.hpp"
#include "ext/statistics/ties.hpp"
#include "ext/worker.hpp"

extern "C" {
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
}

namespace cache_ext::statistics {

/* ---- what is kept: totals and parts ---- */

static char *
collation_name(Oid collation)
{
	HeapTuple tuple = SearchSysCache1(COLLOID, ObjectIdGetDatum(collation));

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for collation %u", collation);
	auto *form = reinterpret_cast<Form_pg_collation>(GETSTRUCT(tuple));
	char *name = quote_qualified_identifier(get_namespace_name(form->collnamespace),
	                                        NameStr(form->collname));
	ReleaseSysCache(tuple);
	return name;
}

static void
append_column(StringInfo out, const char *prefix, int number, Oid type, Oid collation)
{
	appendStringInfo(out, "%s%s%d %s", out->len == 0 ? "" : ", ", prefix, number,
	                 format_type_extended(type, -1, FORMAT_TYPE_FORCE_QUALIFY));
	if (OidIsValid(collation))
		appendStringInfo(out, " COLLATE %s", collation_name(collation));
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
create_table(const char *name, StringInfo columns, int fillfactor, const char *comment)
{
	run("CREATE TABLE cache_ext_internal.%s (%s) WITH (fillfactor = %d)", name, columns->data,
	    fillfactor);
	run("COMMENT ON TABLE cache_ext_internal.%s IS '%s'", name, comment);
	own_table(internal_relation(name));
}

static void
create_unique_index(const char *name, int key_count)
{
	StringInfoData keys;

	if (key_count == 0)
		return;
	initStringInfo(&keys);
	for (int i = 0; i < key_count; ++i)
		appendStringInfo(&keys, "%sk%d", i == 0 ? "" : ", ", i + 1);
	run("CREATE UNIQUE INDEX %s_key ON cache_ext_internal.%s (%s) NULLS NOT DISTINCT", name, name,
	    keys.data);
}

void
create_part(const Definition *d, int32 id, int number)
{
	constexpr int kPartFill = 90;
	const Part &part = d->parts[number];
	char name[NAMEDATALEN];
	StringInfoData columns;

	initStringInfo(&columns);
	append_keys(&columns, part.keys, part.key_count);
	append_cells(&columns, part.cell_is_sum, part.cell_count);
	if (part.by_hash)
		appendStringInfoString(&columns, ", hash integer NOT NULL");
	part_name(id, number, name);
	create_table(name, &columns, kPartFill, "folded values or join keys of a statistic");
	if (part.by_hash)
		run("CREATE INDEX %s_key ON cache_ext_internal.%s USING hash (hash)", name, name);
	else
		create_unique_index(name, part.key_count);
}

static void
create_tables(const Definition *d, int32 id)
{
	constexpr int kTotalsFill = 40;
	char name[NAMEDATALEN];
	StringInfoData columns;

	initStringInfo(&columns);
	append_keys(&columns, d->groups, d->group_count);
	append_cells(&columns, d->cell_is_sum, d->cell_count);
	for (int i = 0; i < d->derived_count; ++i)
		append_column(&columns, "d", i + 1, d->derived[i].type, d->derived[i].collation);
	totals_name(id, name);
	create_table(name, &columns, kTotalsFill, "folded totals of a statistic");
	create_unique_index(name, d->group_count);

	for (int i = 0; i < d->part_count; ++i)
	{
		Part &part = d->parts[i];

		part.by_index = OidIsValid(find_source_index(d, part));
		if (!part.by_index)
			create_part(d, id, i);
	}
	create_side_indexes(d, id);
}

/* ---- what is read ---- */

void
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
			appendStringInfo(&columns, " COLLATE %s", collation_name(column->attcollation));
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

/* ---- all of it ---- */

void
establish(const StatisticRow &row, const Definition *sketch)
{
	ListCell *cell;
	List *relations = source_relations(sketch);
	AsOwner owner(internal_owner());

	lock_sources(relations, ShareRowExclusiveLock);
	create_tables(sketch, row.id);
	tie_together(row);
	insert_statistic(row);
	foreach (cell, relations)
	{
		SourceRow source;

		if (find_source_by_relation(lfirst_oid(cell), &source))
			insert_statistic_source(source.id, row.id);
		forget_compiled(lfirst_oid(cell));
	}
	forget_failure(row.id);
	CommandCounterIncrement();
	owner.restore();
	worker::note_committed_changes_soon(worker::Work::kFilling);
}

} /* namespace cache_ext::statistics */
