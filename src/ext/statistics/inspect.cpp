/*-------------------------------------------------------------------------
 *
 * inspect.cpp
 *		Looking at statistics: status, waiting, time of the last change.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/fill.hpp"
#include "ext/statistics/lost_index.hpp"
#include "ext/statistics/read.hpp"
#include "ext/statistics/restore.hpp"
#include "ext/statistics/sources.hpp"
#include "ext/statistics/triggers.hpp"
#include "ext/statistics/verify.hpp"
#include "ext/statistics/window.hpp"
#include "pg/guard.hpp"
#include "pg/maintenance_lock.hpp"

extern "C" {
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "rewrite/rewriteHandler.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/wait_event.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
}

namespace cache_ext::statistics {

void
require_select(Oid relation)
{
	AclResult result = pg_class_aclcheck(relation, GetUserId(), ACL_SELECT);

	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_VIEW, get_rel_name(relation));
}

Definition *
existing_definition(const StatisticRow &row)
{
	Definition *definition = definition_of(row.id);

	if (definition == nullptr)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
		                errmsg("the statistic was dropped concurrently")));
	return definition;
}

/* ---- status ---- */

/* Rows of the totals; of a window all groups that have rows in some bucket. */
static char *
all_groups(const Definition *d)
{
	const Window *window = d->blocks[0].window;
	char name[NAMEDATALEN];
	StringInfoData keys;

	if (window == nullptr)
	{
		totals_name(d->row.id, name);
		return psprintf("SELECT count(*) FROM cache_ext_internal.%s", name);
	}
	part_name(d->row.id, window->part, name);
	initStringInfo(&keys);
	for (int i = 0; i < d->group_count; ++i)
		appendStringInfo(&keys, "%sk%d", i == 0 ? "" : ", ", i + 2);
	return psprintf("SELECT count(*) FROM (SELECT FROM cache_ext_internal.%s GROUP BY %s) g", name,
	                keys.data);
}

static int64
count_groups(const Definition *d)
{
	if (d->group_count == 0)
		return 1;
	AsOwner owner(internal_owner());
	PinnedSearchPath path; /* or count() could be anybody's, and would run as the owner */
	SPI_connect();
	if (SPI_execute(all_groups(d), true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not count groups");

	bool null;
	int64 count =
	    DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null));
	SPI_finish();
	path.restore();
	owner.restore();
	return count;
}

static char *
trouble_of(const Definition *d)
{
	ListCell *cell;

	foreach (cell, source_relations(d))
	{
		char *trouble = trigger_trouble(lfirst_oid(cell));

		if (trouble != nullptr)
			return trouble;
	}
	return nullptr;
}

/* What a statistic is up to.  Whatever it is, reads are exact; only ready ones are fast. */
struct Condition
{
	const char *state;
	char *detail; /* NULL when there is nothing to say */
};

/* CREATE OR REPLACE VIEW may have put another query where users read. */
static bool
is_shown(const StatisticRow &row)
{
	Relation view = table_open(row.relation, AccessShareLock);
	bool shown = false;
	ListCell *cell;

	foreach (cell, get_view_query(view)->rtable)
		shown = shown || lfirst_node(RangeTblEntry, cell)->relid == row.state;
	table_close(view, NoLock);
	return shown;
}

/* Why a filling failed.  Errors quote values of the tables, so others than readers learn only that.
 */
static char *
shown_failure(const StatisticRow &row)
{
	char *failure = filling_failure(row.id);

	if (failure == nullptr ||
	    pg_class_aclcheck(row.relation, GetUserId(), ACL_SELECT) == ACLCHECK_OK)
		return failure;
	return pstrdup("an error that those see who may read the statistic");
}

static Condition
condition_of(const Definition *d, const ProgressRow &progress)
{
	char *trouble = trouble_of(d);

	if (!is_shown(d->row))
		return {"broken", pstrdup("the view was replaced by another one, which does not read the "
		                          "statistic")};
	if (trouble != nullptr)
		return {"stale", psprintf("%s; reads run the query until it fires again, or until "
		                          "statistics_refresh()",
		                          trouble)};
	if (progress.visible)
	{
		char *lost = lost_index(d);

		return {lost == nullptr ? "ready" : "stale", lost};
	}

	char *failure = shown_failure(d->row);
	if (failure != nullptr)
		return {"broken", psprintf("%s; reads run the query until statistics_refresh()", failure)};
	return {"filling", nullptr};
}

/*
 * Keeps the statistic and its tables until the transaction ends; false when they
 * have just been dropped.  In the order in which a drop takes its locks.
 */
static bool
keep(const StatisticRow &row)
{
	List *relations = NIL;
	ListCell *cell;

	foreach (cell, sources_of_statistic(row.id))
	{
		SourceRow source;

		if (!find_source(lfirst_int(cell), &source))
			return false;
		relations = lappend_oid(relations, source.relation);
	}
	return lock_existing_sources(relations, AccessShareLock) &&
	       lock_existing(row.relation, AccessShareLock) &&
	       lock_existing(row.query, AccessShareLock);
}

/* False when the view is younger than the statement's snapshot: it has no text there. */
static bool
text_of_query(Oid view, Datum *text)
{
	LOCAL_FCINFO(call, 1);

	InitFunctionCallInfoData(*call, nullptr, 1, InvalidOid, nullptr, nullptr);
	call->args[0] = {ObjectIdGetDatum(view), false};
	*text = pg_get_viewdef(call);
	return !call->isnull;
}

constexpr int kStatusColumns = 13;

static void
put_status(const StatisticRow &row, ReturnSetInfo *result)
{
	Definition *definition = keep(row) ? definition_of(row.id) : nullptr;
	Snapshot snapshot = GetActiveSnapshot();
	Datum values[kStatusColumns] = {};
	bool nulls[kStatusColumns] = {};
	int64 pending;
	TimestampTz last_change;

	if (definition == nullptr || !text_of_query(row.query, &values[1]))
		return;

	ProgressRow progress = read_progress(row.id, snapshot);
	Condition condition = condition_of(definition, progress);
	read_pending(definition, snapshot, &pending, &last_change);

	values[0] = ObjectIdGetDatum(row.relation);
	values[2] = CStringGetTextDatum(condition.state);
	values[3] = Float4GetDatum(progress.visible ? 1 : filling_progress(row.relation));
	values[4] = Int64GetDatum(progress.visible ? count_groups(definition) : 0);
	nulls[4] = !progress.visible;
	values[5] = Int64GetDatum(pending);
	values[6] = Int64GetDatum(progress.folded);
	values[7] = TimestampTzGetDatum(last_change);
	nulls[7] = last_change == DT_NOBEGIN;
	values[8] = TimestampTzGetDatum(progress.last_fold);
	nulls[8] = progress.last_fold == DT_NOBEGIN;
	values[9] = Float8GetDatum(progress.folded > 0 ? progress.us / progress.folded : 0);
	nulls[9] = progress.folded == 0;
	Verdict verdict = verdict_on(row.id);
	values[10] = TimestampTzGetDatum(verdict.at);
	nulls[10] = verdict.at == DT_NOBEGIN;
	values[11] = BoolGetDatum(verdict.ok);
	nulls[11] = verdict.at == DT_NOBEGIN;
	nulls[12] = condition.detail == nullptr;
	if (condition.detail != nullptr)
		values[12] = CStringGetTextDatum(condition.detail);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	if (!progress.visible)
		wake_filling();
}

/* One that a dump has brought; the worker takes it up once its tables have their triggers. */
static void
put_restored_status(const StatisticRow &row, ReturnSetInfo *result)
{
	Datum values[kStatusColumns] = {};
	bool nulls[kStatusColumns];
	if (!lock_existing(row.query, AccessShareLock) || !text_of_query(row.query, &values[1]))
		return;

	char *failure = shown_failure(row);

	memset(nulls, true, sizeof(nulls));
	nulls[0] = nulls[1] = nulls[2] = nulls[3] = nulls[12] = false;
	values[0] = ObjectIdGetDatum(row.relation);
	values[2] = CStringGetTextDatum(failure == nullptr ? "filling" : "broken");
	values[3] = Float4GetDatum(0);
	values[12] = CStringGetTextDatum(
	    failure != nullptr ? failure : "restored; it waits for the triggers of its tables");
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	wake_filling();
}

/* ---- waiting ---- */

static bool
made_in_this_transaction(Oid relation)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));

	if (!HeapTupleIsValid(tuple))
		return false;
	bool made = TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetRawXmin(tuple->t_data));
	ReleaseSysCache(tuple);
	return made;
}

static bool
is_ready(Oid relation)
{
	StatisticRow row;

	if (!find_statistic_by_relation(relation, &row))
	{
		if (!find_restored(relation, &row))
			(void) statistic_of(relation);
		wake_filling();
		return false;
	}

	Definition *definition = existing_definition(row);
	Condition condition = condition_of(definition, read_progress(row.id, nullptr));

	if (strcmp(condition.state, "ready") == 0)
		return true;
	if (condition.detail != nullptr)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		                errmsg("statistic \"%s\" is %s", get_rel_name(relation), condition.state),
		                errdetail("%s.", condition.detail),
		                errhint("Call statistics_refresh() when the cause is gone.")));
	if (pg::holds_off_maintenance() || made_in_this_transaction(relation))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		                errmsg("statistic \"%s\" cannot be filled before this transaction commits",
		                       get_rel_name(relation)),
		                errhint("Commit, then call statistics_wait().")));
	wake_filling();
	return false;
}

static bool
wait_until_ready(Oid relation, TimestampTz limit)
{
	constexpr long kPollMs = 20;

	for (;;)
	{
		AcceptInvalidationMessages();
		if (is_ready(relation))
			return true;
		if (GetCurrentTimestamp() >= limit)
			return false;
		pg::call([] {
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_TIMEOUT, kPollMs,
			                 PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		});
	}
}

extern "C" {

PG_FUNCTION_INFO_V1(cache_ext_statistics_status);
PG_FUNCTION_INFO_V1(cache_ext_statistics_last_change);
PG_FUNCTION_INFO_V1(cache_ext_statistics_wait);

Datum
cache_ext_statistics_status(PG_FUNCTION_ARGS)
{
	InitMaterializedSRF(fcinfo, 0);
	pg::guard([&] {
		ListCell *cell;

		auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);

		foreach (cell, all_statistics())
			put_status(*static_cast<StatisticRow *>(lfirst(cell)), result);
		foreach (cell, restored_statistics())
			put_restored_status(*static_cast<StatisticRow *>(lfirst(cell)), result);
	});
	return (Datum) 0;
}

Datum
cache_ext_statistics_last_change(PG_FUNCTION_ARGS)
{
	TimestampTz last_change = DT_NOBEGIN;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	Oid relation = PG_GETARG_OID(0);

	pg::guard([&] {
		StatisticRow row = statistic_of(relation);
		int64 rows;

		require_select(row.relation);
		read_pending(existing_definition(row), GetActiveSnapshot(), &rows, &last_change);
	});
	if (last_change == DT_NOBEGIN)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(last_change);
}

Datum
cache_ext_statistics_wait(PG_FUNCTION_ARGS)
{
	TimestampTz limit = DT_NOEND;

	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
		                errmsg("argument \"relation\" must not be null")));
	if (!PG_ARGISNULL(1))
		limit = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
		                                                TimestampTzGetDatum(GetCurrentTimestamp()),
		                                                PG_GETARG_DATUM(1)));
	Oid relation = PG_GETARG_OID(0);

	PG_RETURN_BOOL(pg::guard([&] { return wait_until_ready(relation, limit); }));
}
}

} /* namespace cache_ext::statistics */
