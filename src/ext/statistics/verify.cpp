/*-------------------------------------------------------------------------
 *
 * verify.cpp
 *		See verify.hpp.
 *
 * The recomputation is the statistic's own query, run by PostgreSQL, but for
 * one thing: sums, averages and variances of floating-point columns are taken
 * over the exact numeric values.  The plain ones lose digits where values
 * cancel, and would be reported as differences that they are themselves.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/verify.hpp"

#include <cmath>

#include "core/statistics/exact_decimal.hpp"
#include "ext/statistics/sources.hpp"
#include "ext/worker.hpp"
#include "pg/guard.hpp"
#include "pg/settings.hpp"
#include "pg/tree.hpp"

extern "C" {
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_func.h"
#include "rewrite/rewriteHandler.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/typcache.h"
}

namespace cache_ext::statistics {

/* ---- the exact query ---- */

struct ExactAggregate
{
	Oid plain;
	Oid exact;
};

constexpr ExactAggregate kExactAggregates[] = {
    {F_SUM_FLOAT4, F_SUM_NUMERIC},
    {F_SUM_FLOAT8, F_SUM_NUMERIC},
    {F_AVG_FLOAT4, F_AVG_NUMERIC},
    {F_AVG_FLOAT8, F_AVG_NUMERIC},
    {F_VARIANCE_FLOAT4, F_VARIANCE_NUMERIC},
    {F_VARIANCE_FLOAT8, F_VARIANCE_NUMERIC},
    {F_VAR_SAMP_FLOAT4, F_VAR_SAMP_NUMERIC},
    {F_VAR_SAMP_FLOAT8, F_VAR_SAMP_NUMERIC},
    {F_VAR_POP_FLOAT4, F_VAR_POP_NUMERIC},
    {F_VAR_POP_FLOAT8, F_VAR_POP_NUMERIC},
    {F_STDDEV_FLOAT4, F_STDDEV_NUMERIC},
    {F_STDDEV_FLOAT8, F_STDDEV_NUMERIC},
    {F_STDDEV_SAMP_FLOAT4, F_STDDEV_SAMP_NUMERIC},
    {F_STDDEV_SAMP_FLOAT8, F_STDDEV_SAMP_NUMERIC},
    {F_STDDEV_POP_FLOAT4, F_STDDEV_POP_NUMERIC},
    {F_STDDEV_POP_FLOAT8, F_STDDEV_POP_NUMERIC},
};

static Oid
exact_function()
{
	Oid argument = FLOAT8OID;
	AsOwner owner(internal_owner()); /* callers may not name what is ours */
	Oid function = LookupFuncName(
	    list_make2(makeString(pstrdup(kInternalSchema)), makeString(pstrdup("exact"))), 1,
	    &argument, false);

	owner.restore();
	return function;
}

static Expr *
converted(Oid function, Oid type, Expr *value)
{
	return (Expr *) makeFuncExpr(function, type, list_make1(value), InvalidOid, InvalidOid,
	                             COERCE_EXPLICIT_CALL);
}

static Node *
make_exact(Node *node, Oid *exact)
{
	if (node == nullptr)
		return nullptr;
	if (IsA(node, Query))
		return (Node *) pg::mutate_query(castNode(Query, node), make_exact, exact);
	node = pg::mutate_children(node, make_exact, exact);
	if (!IsA(node, Aggref))
		return node;

	auto *aggregate = (Aggref *) node;
	for (const ExactAggregate &pair : kExactAggregates)
	{
		if (aggregate->aggfnoid != pair.plain)
			continue;

		auto *argument = linitial_node(TargetEntry, aggregate->args);
		Oid result = aggregate->aggtype;

		if (exprType((Node *) argument->expr) == FLOAT4OID)
			argument->expr = converted(F_FLOAT8_FLOAT4, FLOAT8OID, argument->expr);
		argument->expr = converted(*exact, NUMERICOID, argument->expr);
		aggregate->aggfnoid = pair.exact;
		aggregate->aggtype = NUMERICOID;
		aggregate->aggargtypes = list_make1_oid(NUMERICOID);
		return (Node *) converted(result == FLOAT4OID ? F_FLOAT4_NUMERIC : F_FLOAT8_NUMERIC, result,
		                          (Expr *) aggregate);
	}
	return node;
}

/* ---- comparing ---- */

/* The operator that EXCEPT uses for a type; InvalidOid when it has none and is compared as text. */
static Oid
equality_of(Oid type)
{
	return lookup_type_cache(getBaseType(type), TYPECACHE_EQ_OPR)->eq_opr;
}

/* How m (missing) and e (extra) are the same row but for the last digits of a floating-point
 * number. */
static void
append_similarity(StringInfo out, const char *column, Oid type)
{
	Oid equality = equality_of(type);
	HeapTuple tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(equality));
	Oid schema = HeapTupleIsValid(tuple)
	                 ? reinterpret_cast<Form_pg_operator>(GETSTRUCT(tuple))->oprnamespace
	                 : PG_CATALOG_NAMESPACE;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	if (out->len > 0)
		appendStringInfoString(out, " AND ");
	if (schema == PG_CATALOG_NAMESPACE)
		appendStringInfo(out, "(m.%s IS NOT DISTINCT FROM e.%s", column, column);
	else
		appendStringInfo(out, "(m.%s OPERATOR(%s.%s) e.%s OR pg_catalog.num_nulls(m.%s, e.%s) = 2",
		                 column, quote_identifier(get_namespace_name(schema)), get_opname(equality),
		                 column, column, column);
	if (type == FLOAT4OID || type == FLOAT8OID)
		appendStringInfo(out,
		                 " OR pg_catalog.abs(m.%s / 2 - e.%s / 2) <= %s * "
		                 "GREATEST(pg_catalog.abs(m.%s / 2), pg_catalog.abs(e.%s / 2))",
		                 column, column, type == FLOAT4OID ? "1e-5" : "1e-9", column, column);
	appendStringInfoChar(out, ')');
}

/* The query that compares the statistic with its recomputation in one snapshot. */
static char *
comparison(const Definition *d)
{
	StringInfoData all;
	StringInfoData columns;
	StringInfoData similarity;
	StringInfoData sql;
	Relation view = table_open(d->row.query, AccessShareLock);
	TupleDesc desc = RelationGetDescr(view);

	initStringInfo(&all);
	initStringInfo(&columns);
	initStringInfo(&similarity);
	initStringInfo(&sql);
	for (int i = 0; i < desc->natts; ++i)
	{
		const char *name = quote_identifier(NameStr(TupleDescAttr(desc, i)->attname));

		appendStringInfo(&all, "%s%s", i == 0 ? "" : ", ", name);
		if (d->output_is_last_change[i])
			continue;
		if (OidIsValid(equality_of(TupleDescAttr(desc, i)->atttypid)))
			appendStringInfo(&columns, "%s%s", columns.len == 0 ? "" : ", ", name);
		else
			appendStringInfo(&columns, "%s%s::pg_catalog.text AS %s", columns.len == 0 ? "" : ", ",
			                 name, name);
		append_similarity(&similarity, name, TupleDescAttr(desc, i)->atttypid);
	}
	if (columns.len == 0) /* only the time of the last change: the number of rows is left */
	{
		appendStringInfoString(&columns, "1 AS one");
		appendStringInfoString(&similarity, "true");
	}

	Oid exact = exact_function();
	auto *query = (Query *) make_exact((Node *) copyObjectImpl(get_view_query(view)), &exact);
	appendStringInfo(&sql,
	                 "WITH q AS MATERIALIZED (SELECT %s FROM (%s) AS x (%s)), "
	                 "s AS MATERIALIZED (SELECT %s FROM %s AS x (%s)), "
	                 "m AS (TABLE q EXCEPT ALL TABLE s), e AS (TABLE s EXCEPT ALL TABLE q) "
	                 "SELECT 'missing', pg_catalog.to_jsonb(m) FROM m "
	                 "WHERE NOT EXISTS (SELECT FROM e WHERE %s) "
	                 "UNION ALL SELECT 'extra', pg_catalog.to_jsonb(e) FROM e "
	                 "WHERE NOT EXISTS (SELECT FROM m WHERE %s)",
	                 columns.data, pg_get_querydef(query, false), all.data, columns.data,
	                 qualified_name(d->row.relation), all.data, similarity.data, similarity.data);
	table_close(view, NoLock);
	return sql.data;
}

/* Runs the comparison; visit(tuple, desc) sees each difference. */
template <typename Visit>
static void
for_each_difference(const Definition *definition, Visit &&visit)
{
	ListCell *cell;

	/* TRUNCATE is not MVCC-safe: keep it out before the snapshot is taken. */
	foreach (cell, source_relations(definition))
		LockRelationOid(lfirst_oid(cell), AccessShareLock);

	PushActiveSnapshot(IsolationUsesXactSnapshot() ? GetTransactionSnapshot()
	                                               : GetLatestSnapshot());
	PinnedSearchPath path;
	SPI_connect();
	select_as(relation_owner(definition->row.query), comparison(definition));
	for (uint64 i = 0; i < SPI_processed; ++i)
		visit(SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
	SPI_finish();
	path.restore();
	PopActiveSnapshot();
}

static void
verify(Oid relation, ReturnSetInfo *result)
{
	StatisticRow row = statistic_of(relation);

	require_select(row.relation);
	for_each_difference(existing_definition(row), [&](HeapTuple tuple, TupleDesc desc) {
		Datum values[2];
		bool nulls[2];

		heap_deform_tuple(tuple, desc, values, nulls);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	});
}

/* ---- in the background ---- */

Verdict
verdict_on(int32 statistic)
{
	Verdict verdict = {DT_NOBEGIN, false};
	AsOwner owner(internal_owner());
	PinnedSearchPath path;

	SPI_connect();
	if (SPI_execute(psprintf("SELECT at, ok FROM cache_ext_internal.verification "
	                         "WHERE statistic = %d",
	                         statistic),
	                false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read verifications");
	if (SPI_processed > 0)
	{
		bool null;

		verdict.at = DatumGetTimestampTz(
		    SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null));
		verdict.ok =
		    DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &null));
	}
	SPI_finish();
	path.restore();
	owner.restore();
	return verdict;
}

List *
unverified_statistics()
{
	ListCell *cell;
	List *due = NIL;
	TimestampTz oldest = DT_NOEND;
	TimestampTz limit = GetCurrentTimestamp() - pg::verify_interval_s * USECS_PER_SEC;

	if (pg::verify_interval_s == 0)
		return NIL;
	foreach (cell, all_statistics())
	{
		auto *row = static_cast<StatisticRow *>(lfirst(cell));
		TimestampTz at = verdict_on(row->id).at;

		if (at > limit || !read_progress(row->id, nullptr).visible)
			continue;
		due = at < oldest ? lcons(row, due) : lappend(due, row);
		oldest = Min(oldest, at);
	}
	return due;
}

void
remember_verdict(int32 statistic, bool ok)
{
	run("INSERT INTO cache_ext_internal.verification "
	    "SELECT id, pg_catalog.clock_timestamp(), %s FROM cache_ext_internal.statistic "
	    "WHERE id = %d ON CONFLICT (statistic) DO UPDATE SET at = excluded.at, ok = excluded.ok",
	    ok ? "true" : "false", statistic);
}

void
forget_verdict(int32 statistic)
{
	AsOwner owner(internal_owner());

	run("DELETE FROM cache_ext_internal.verification WHERE statistic = %d", statistic);
	owner.restore();
	worker::note_committed_changes_soon(worker::Work::kFilling);
}

void
verify_in_background(const StatisticRow &row)
{
	if (!lock_existing(row.query, AccessShareLock) || !lock_existing(row.relation, AccessShareLock))
		return;

	Definition *definition = definition_of(row.id);
	int64 differences = 0;

	if (definition == nullptr)
		return;
	for_each_difference(definition, [&](HeapTuple, TupleDesc) { ++differences; });
	remember_verdict(row.id, differences == 0);
	if (differences > 0)
		ereport(WARNING,
		        (errmsg("statistic \"%s\" differs from its query in %lld rows",
		                get_rel_name(row.relation), (long long) differences),
		         errhint("See statistics_verify(); statistics_refresh() computes it anew.")));
}

extern "C" {

PG_FUNCTION_INFO_V1(cache_ext_statistics_verify);
PG_FUNCTION_INFO_V1(cache_ext_exact);

Datum
cache_ext_statistics_verify(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
		                errmsg("argument \"relation\" must not be null")));
	Oid relation = PG_GETARG_OID(0);

	InitMaterializedSRF(fcinfo, 0);
	pg::guard([&] { verify(relation, reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo)); });
	return (Datum) 0;
}

/* The numeric that is exactly this number; a cast rounds to 15 digits. */
Datum
cache_ext_exact(PG_FUNCTION_ARGS)
{
	float8 value = PG_GETARG_FLOAT8(0);
	char digits[kExactDecimalSize];

	if (std::isfinite(value))
		exact_decimal(value, digits);
	else
		strlcpy(digits,
		        std::isnan(value) ? "NaN"
		        : value > 0       ? "Infinity"
		                          : "-Infinity",
		        sizeof(digits));
	return DirectFunctionCall3(numeric_in, CStringGetDatum(digits), ObjectIdGetDatum(InvalidOid),
	                           Int32GetDatum(-1));
}
}

} /* namespace cache_ext::statistics */
