/*-------------------------------------------------------------------------
 *
 * catalog.cpp
 *		Reading and writing the statistics' catalog tables; see catalog.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/catalog.hpp"
#include "pg/objects.hpp"

extern "C" {
#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "commands/sequence.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
}

namespace cache_ext::statistics {

Oid
internal_relation(const char *name, bool missing_ok)
{
	Oid schema = pg::internal_schema();
	Oid relation = OidIsValid(schema) ? get_relname_relid(name, schema) : InvalidOid;

	if (!OidIsValid(relation) && !missing_ok)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
		                errmsg("relation \"%s.%s\" does not exist", kInternalSchema, name),
		                errhint("Create the extension cache_ext anew.")));
	return relation;
}

Oid
internal_owner()
{
	Oid schema = get_namespace_oid(kInternalSchema, false);
	HeapTuple tuple = SearchSysCache1(NAMESPACEOID, ObjectIdGetDatum(schema));

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for schema %u", schema);
	Oid owner = reinterpret_cast<Form_pg_namespace>(GETSTRUCT(tuple))->nspowner;
	ReleaseSysCache(tuple);
	return owner;
}

void
log_name(int32 source, char (&out)[NAMEDATALEN])
{
	snprintf(out, NAMEDATALEN, "log_%d", source);
}

/* A table of ours, scanned by equality on at most one column. */
struct CatalogScan
{
	Relation table;
	SysScanDesc scan;

	CatalogScan(const char *name, AttrNumber column, Oid equality, Datum value,
	            LOCKMODE lock = AccessShareLock, Snapshot snapshot = nullptr)
	{
		ScanKeyData key;
		int keys = 0;
		Oid index = InvalidOid;

		table = table_open(internal_relation(name), lock);
		if (column != 0)
		{
			ScanKeyInit(&key, column, BTEqualStrategyNumber, equality, value);
			keys = 1;
			index = index_on(column);
		}
		scan = systable_beginscan(table, index, OidIsValid(index), snapshot, keys, &key);
	}

	HeapTuple next() { return systable_getnext(scan); }

	void close(LOCKMODE lock = NoLock)
	{
		systable_endscan(scan);
		table_close(table, lock);
	}

	Datum value(HeapTuple tuple, int column) const
	{
		bool null;
		Datum datum = heap_getattr(tuple, column, RelationGetDescr(table), &null);

		return null ? (Datum) 0 : datum;
	}

	/* An index whose first column is this one. */
	Oid index_on(AttrNumber column) const
	{
		ListCell *cell;
		List *indexes = RelationGetIndexList(table);
		Oid found = InvalidOid;

		foreach (cell, indexes)
		{
			HeapTuple tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(lfirst_oid(cell)));

			if (!HeapTupleIsValid(tuple))
				continue;
			auto *form = reinterpret_cast<Form_pg_index>(GETSTRUCT(tuple));
			if (form->indkey.values[0] == column && form->indisvalid)
				found = lfirst_oid(cell);
			ReleaseSysCache(tuple);
			if (OidIsValid(found))
				break;
		}
		list_free(indexes);
		return found;
	}
};

static void
read_row(const CatalogScan &scan, HeapTuple tuple, StatisticRow *row)
{
	*row = {DatumGetInt32(scan.value(tuple, 1)), DatumGetObjectId(scan.value(tuple, 2)),
	        DatumGetObjectId(scan.value(tuple, 3)), DatumGetObjectId(scan.value(tuple, 4))};
}

static void
read_row(const CatalogScan &scan, HeapTuple tuple, SourceRow *row)
{
	char name[NAMEDATALEN];

	row->id = DatumGetInt32(scan.value(tuple, 1));
	row->relation = DatumGetObjectId(scan.value(tuple, 2));
	log_name(row->id, name);
	row->log = internal_relation(name, true);
}

template <typename Row>
static bool
find_one(const char *table, AttrNumber column, Oid equality, Datum value, Row *row)
{
	CatalogScan scan(table, column, equality, value);
	HeapTuple tuple = scan.next();
	bool found = HeapTupleIsValid(tuple);

	if (found)
		read_row(scan, tuple, row);
	scan.close();
	return found;
}

template <typename Row>
static List *
read_all(const char *table)
{
	List *rows = NIL;
	CatalogScan scan(table, 0, InvalidOid, 0);

	while (HeapTuple tuple = scan.next())
	{
		auto *row = static_cast<Row *>(palloc(sizeof(Row)));

		read_row(scan, tuple, row);
		rows = lappend(rows, row);
	}
	scan.close();
	return rows;
}

bool
find_statistic(int32 id, StatisticRow *row)
{
	return find_one("statistic", 1, F_INT4EQ, Int32GetDatum(id), row);
}

bool
find_statistic_by_relation(Oid relation, StatisticRow *row)
{
	ListCell *cell;

	foreach (cell, all_statistics())
	{
		auto *candidate = static_cast<StatisticRow *>(lfirst(cell));

		if (candidate->relation == relation || candidate->query == relation ||
		    candidate->state == relation)
		{
			*row = *candidate;
			return true;
		}
	}
	return false;
}

bool
find_source(int32 id, SourceRow *row)
{
	return find_one("source", 1, F_INT4EQ, Int32GetDatum(id), row);
}

bool
find_source_by_relation(Oid relation, SourceRow *row)
{
	return find_one("source", 2, F_OIDEQ, ObjectIdGetDatum(relation), row);
}

List *
all_statistics()
{
	return read_all<StatisticRow>("statistic");
}

List *
all_sources()
{
	return read_all<SourceRow>("source");
}

static List *
linked(AttrNumber by, int32 id, AttrNumber wanted)
{
	List *ids = NIL;
	CatalogScan scan("statistic_source", by, F_INT4EQ, Int32GetDatum(id));

	while (HeapTuple tuple = scan.next())
		ids = lappend_int(ids, DatumGetInt32(scan.value(tuple, wanted)));
	scan.close();
	list_sort(ids, list_int_cmp);
	return ids;
}

List *
statistics_of_source(int32 source)
{
	return linked(1, source, 2);
}

List *
sources_of_statistic(int32 statistic)
{
	return linked(2, statistic, 1);
}

List *
leaves_of_source(int32 source)
{
	List *leaves = NIL;
	CatalogScan scan("leaf", 2, F_INT4EQ, Int32GetDatum(source));

	while (HeapTuple tuple = scan.next())
		leaves = lappend_oid(leaves, DatumGetObjectId(scan.value(tuple, 1)));
	scan.close();
	return leaves;
}

bool
find_leaf(Oid relation, int32 *source)
{
	CatalogScan scan("leaf", 1, F_OIDEQ, ObjectIdGetDatum(relation));
	HeapTuple tuple = scan.next();

	if (HeapTupleIsValid(tuple))
		*source = DatumGetInt32(scan.value(tuple, 2));
	bool found = HeapTupleIsValid(tuple);
	scan.close();
	return found;
}

static void
insert_row(const char *name, Datum *values, int count)
{
	Relation table = table_open(internal_relation(name), RowExclusiveLock);
	bool nulls[8] = {};

	Assert(count == RelationGetNumberOfAttributes(table) && count <= (int) lengthof(nulls));
	(void) count;
	CatalogTupleInsert(table, heap_form_tuple(RelationGetDescr(table), values, nulls));
	table_close(table, NoLock);
	CommandCounterIncrement();
}

void
insert_statistic(const StatisticRow &row)
{
	Datum values[] = {Int32GetDatum(row.id), ObjectIdGetDatum(row.relation),
	                  ObjectIdGetDatum(row.query), ObjectIdGetDatum(row.state)};

	insert_row("statistic", values, lengthof(values));
}

void
insert_source(const SourceRow &row)
{
	Datum values[] = {Int32GetDatum(row.id), ObjectIdGetDatum(row.relation)};

	insert_row("source", values, lengthof(values));
}

void
insert_statistic_source(int32 source, int32 statistic)
{
	Datum values[] = {Int32GetDatum(source), Int32GetDatum(statistic)};

	insert_row("statistic_source", values, lengthof(values));
}

void
insert_leaf(Oid relation, int32 source)
{
	Datum values[] = {ObjectIdGetDatum(relation), Int32GetDatum(source)};

	insert_row("leaf", values, lengthof(values));
}

static void
delete_rows(const char *name, AttrNumber column, Oid equality, Datum value)
{
	CatalogScan scan(name, column, equality, value, RowExclusiveLock);

	while (HeapTuple tuple = scan.next())
		CatalogTupleDelete(scan.table, &tuple->t_self);
	scan.close();
	CommandCounterIncrement();
}

void
delete_leaf(Oid relation)
{
	delete_rows("leaf", 1, F_OIDEQ, ObjectIdGetDatum(relation));
}

void
delete_statistic(int32 id)
{
	delete_rows("statistic_source", 2, F_INT4EQ, Int32GetDatum(id));
	delete_rows("progress", 1, F_INT4EQ, Int32GetDatum(id));
	delete_rows("verification", 1, F_INT4EQ, Int32GetDatum(id));
	delete_rows("statistic", 1, F_INT4EQ, Int32GetDatum(id));
}

void
delete_source(int32 id)
{
	delete_rows("leaf", 2, F_INT4EQ, Int32GetDatum(id));
	delete_rows("source", 1, F_INT4EQ, Int32GetDatum(id));
}

int32
next_number(const char *sequence)
{
	return static_cast<int32>(nextval_internal(internal_relation(sequence), false));
}

static TimestampTz
timestamp_or_none(HeapTuple tuple, int column, TupleDesc desc)
{
	bool null;
	Datum datum = heap_getattr(tuple, column, desc, &null);

	return null ? DT_NOBEGIN : DatumGetTimestampTz(datum);
}

ProgressRow
read_progress(int32 statistic, Snapshot snapshot)
{
	CatalogScan scan("progress", 1, F_INT4EQ, Int32GetDatum(statistic), AccessShareLock, snapshot);
	HeapTuple tuple = scan.next();
	ProgressRow row = {false, DT_NOBEGIN, DT_NOBEGIN, 0, 0};

	if (HeapTupleIsValid(tuple))
	{
		TupleDesc desc = RelationGetDescr(scan.table);

		row.visible = true;
		row.last_change = timestamp_or_none(tuple, 2, desc);
		row.last_fold = timestamp_or_none(tuple, 3, desc);
		row.folded = DatumGetInt64(scan.value(tuple, 4));
		row.us = DatumGetFloat8(scan.value(tuple, 5));
	}
	scan.close(AccessShareLock);
	return row;
}

/*
 * Whatever the transaction's snapshot is: the newest row goes.  Folds are held
 * off, so only another command can have removed it meanwhile.
 */
void
delete_progress(int32 statistic)
{
	for (bool again = true; again;)
	{
		CatalogScan scan("progress", 1, F_INT4EQ, Int32GetDatum(statistic), RowExclusiveLock);

		again = false;
		while (HeapTuple tuple = scan.next())
		{
			TM_FailureData failure;
			TM_Result result = heap_delete(scan.table, &tuple->t_self, GetCurrentCommandId(true),
			                               InvalidSnapshot, true, &failure, false);

			again = again || result == TM_Updated;
		}
		scan.close();
	}
	CommandCounterIncrement();
}

void
write_progress(int32 statistic, TimestampTz last_change, int64 folded, double us)
{
	CatalogScan scan("progress", 1, F_INT4EQ, Int32GetDatum(statistic), RowExclusiveLock);
	HeapTuple old = scan.next();
	Datum values[] = {Int32GetDatum(statistic), 0, 0, 0, 0};
	bool nulls[] = {false, true, true, false, false};

	if (HeapTupleIsValid(old))
	{
		last_change = Max(last_change, timestamp_or_none(old, 2, RelationGetDescr(scan.table)));
		folded += DatumGetInt64(scan.value(old, 4));
		us += DatumGetFloat8(scan.value(old, 5));
	}
	if (last_change != DT_NOBEGIN)
	{
		values[1] = TimestampTzGetDatum(last_change);
		nulls[1] = false;
	}
	values[2] = TimestampTzGetDatum(GetCurrentTimestamp());
	nulls[2] = false;
	values[3] = Int64GetDatum(folded);
	values[4] = Float8GetDatum(us);

	HeapTuple fresh = heap_form_tuple(RelationGetDescr(scan.table), values, nulls);
	if (HeapTupleIsValid(old))
		CatalogTupleUpdate(scan.table, &old->t_self, fresh);
	else
		CatalogTupleInsert(scan.table, fresh);
	scan.close();
}

} /* namespace cache_ext::statistics */
