/*-------------------------------------------------------------------------
 *
 * capture.cpp
 *		The triggers: from changed rows to a partial row and to watched items.
 *
 * A statement's rows come in transition tables; each row is fed with sign -1
 * (old) or +1 (new) to every block that reads the table, the changes are netted,
 * and what is left is appended to the log.  Nothing is read or locked that
 * another writer could hold, so writers cannot wait or fail because of it.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/capture.hpp"
#include "ext/statistics/feed.hpp"
#include "ext/statistics/log.hpp"
#include "ext/worker.hpp"
#include "pg/guard.hpp"
#include "pg/memory.hpp"

extern "C" {
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/partition.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "portability/instr_time.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"
}

namespace cache_ext::statistics {

static HTAB *captures = nullptr;

struct CachedCapture
{
	Oid relation;
	Capture *capture;
};

static Oid
root_of(Relation relation)
{
	SourceRow source;
	int32 number;

	if (find_leaf(RelationGetRelid(relation), &number) && find_source(number, &source))
		return source.relation;
	if (!relation->rd_rel->relispartition)
		return RelationGetRelid(relation);

	List *ancestors = get_partition_ancestors(RelationGetRelid(relation));
	return llast_oid(ancestors);
}

Capture *
capture_of(Relation relation)
{
	if (captures == nullptr)
	{
		HASHCTL control = {};

		control.keysize = sizeof(Oid);
		control.entrysize = sizeof(CachedCapture);
		captures = hash_create("cache_ext captures", 16, &control, HASH_ELEM | HASH_BLOBS);
	}

	Oid relid = RelationGetRelid(relation);
	bool found;
	auto *entry = static_cast<CachedCapture *>(hash_search(captures, &relid, HASH_ENTER, &found));
	if (!found)
		entry->capture = nullptr;
	if (entry->capture != nullptr && entry->capture->valid)
		return entry->capture;

	/* An outer use of the stale one can only be in this transaction. */
	if (entry->capture != nullptr)
		MemoryContextSetParent(entry->capture->context, TopTransactionContext);
	entry->capture = nullptr;

	Capture *capture = compile_capture(relation, root_of(relation));
	MemoryContextSetParent(capture->context, CacheMemoryContext);
	entry = static_cast<CachedCapture *>(hash_search(captures, &relid, HASH_ENTER, &found));
	entry->capture = capture;
	return capture;
}

static void
invalidate(Datum, Oid relation)
{
	forget_definitions(relation);
	if (captures == nullptr)
		return;

	HASH_SEQ_STATUS status;
	hash_seq_init(&status, captures);
	while (auto *entry = static_cast<CachedCapture *>(hash_seq_search(&status)))
		if (entry->capture != nullptr && (!OidIsValid(relation) || relation == entry->relation ||
		                                  relation == entry->capture->root))
			entry->capture->valid = false;
}

void
register_capture_callbacks()
{
	CacheRegisterRelcacheCallback(invalidate, (Datum) 0);
}

void
forget_compiled(Oid relation)
{
	CacheInvalidateRelcacheByRelid(relation);
}

/* ---- feeding the rows of a statement ---- */

/* The delta of a statement; the capture keeps it from statement to statement. */
class BorrowedDelta
{
  public:
	explicit BorrowedDelta(Capture *capture) : capture_(capture), delta_(capture->delta)
	{
		capture->delta = nullptr;
		if (delta_ == nullptr)
			delta_ = pg::make_in<Delta>(capture->context);
	}
	~BorrowedDelta()
	{
		delta_->clear();
		capture_->delta = delta_;
	}
	BorrowedDelta(const BorrowedDelta &) = delete;
	BorrowedDelta &operator=(const BorrowedDelta &) = delete;

	Delta *get() const noexcept { return delta_; }

  private:
	Capture *capture_;
	Delta *delta_;
};

static void
feed_transition_tables(Capture *capture, Delta *delta, TriggerData *trigger)
{
	Tuplestorestate *old_rows = trigger->tg_oldtable;
	Tuplestorestate *new_rows = trigger->tg_newtable;
	TupleTableSlot *old_row = capture->old_row;
	TupleTableSlot *new_row = capture->new_row;
	bool paired = old_rows != nullptr && new_rows != nullptr;

	if (old_rows != nullptr)
		tuplestore_rescan(old_rows);
	if (new_rows != nullptr)
		tuplestore_rescan(new_rows);

	for (;;)
	{
		bool has_old =
		    old_rows != nullptr && tuplestore_gettupleslot(old_rows, true, false, old_row);
		bool has_new =
		    new_rows != nullptr && tuplestore_gettupleslot(new_rows, true, false, new_row);

		if (!has_old && !has_new)
			break;
		CHECK_FOR_INTERRUPTS();
		if (paired && has_old && has_new)
			feed_change(capture, delta, old_row, new_row);
		else
			feed_change(capture, delta, has_old ? old_row : nullptr, has_new ? new_row : nullptr);
	}
	ExecClearTuple(old_row);
	ExecClearTuple(new_row);
}

/* Time since the start, in microseconds. */
static double
elapsed(instr_time start)
{
	instr_time now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, start);
	return INSTR_TIME_GET_DOUBLE(now) * 1e6;
}

/*
 * The partial row says what the trigger has cost, a share for each statistic:
 * the time since its start, and what appending cost the last time.
 */
static void
append(Capture *capture, Delta *delta, instr_time start)
{
	static double last_append = 0;
	double before = elapsed(start);
	bool appended =
	    append_to_log(capture->log, delta, &capture->row,
	                  (float) ((before + last_append) / Max(capture->statistic_count, 1)));

	last_append = elapsed(start) - before;
	if (appended)
		worker::note_committed_changes_soon();
}

/* ---- truncation and whole partitions ---- */

/*
 * Append what all rows of a relation count for, with a sign.
 *
 * The rows are those of the newest snapshot: the caller's lock keeps writers
 * out, and all earlier ones have ended.  A transaction whose own snapshot is
 * older would see the statistic without the rows that it cannot see, minus
 * those rows, so it has to start again.
 */
void
append_relation(Capture *capture, Relation relation, int sign)
{
	Delta *delta = pg::make_in<Delta>(CurrentMemoryContext);
	instr_time start;

	INSTR_TIME_SET_CURRENT(start);
	if (IsolationUsesXactSnapshot() && capture->feed_count > 0)
	{
		Delta *unseen = pg::make_in<Delta>(CurrentMemoryContext);
		Snapshot latest = RegisterSnapshot(GetLatestSnapshot());

		feed_relation(capture, relation, unseen, latest, 1, [] {});
		UnregisterSnapshot(latest);
		feed_relation(capture, relation, unseen, GetActiveSnapshot(), -1, [] {});
		if (!delta_is_zero(unseen))
			ereport(ERROR,
			        (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			         errmsg("could not serialize access due to concurrent change of \"%s\"",
			                RelationGetRelationName(relation)),
			         errdetail("Rows that this transaction cannot see would leave a statistic."),
			         errhint("The transaction might succeed if retried.")));
	}

	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	if (capture->feed_count > 0)
		feed_relation(capture, relation, delta, snapshot, sign, [] {});
	UnregisterSnapshot(snapshot);

	append(capture, delta, start);
}

/* ---- what the server calls ---- */

static TriggerData *
trigger_data(FunctionCallInfo fcinfo)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
		                errmsg("function must be called as a trigger")));
	return reinterpret_cast<TriggerData *>(fcinfo->context);
}

extern "C" {

PG_FUNCTION_INFO_V1(cache_ext_capture_statement);
PG_FUNCTION_INFO_V1(cache_ext_capture_row);
PG_FUNCTION_INFO_V1(cache_ext_capture_truncate);

Datum
cache_ext_capture_statement(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = trigger_data(fcinfo);
	instr_time start;

	if (SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA)
		PG_RETURN_POINTER(nullptr); /* the row trigger counts, even if this one was made ALWAYS */
	INSTR_TIME_SET_CURRENT(start);

	pg::guard([&] {
		Capture *capture = capture_of(trigger->tg_relation);
		BorrowedDelta delta(capture);

		pg::call([&] {
			feed_transition_tables(capture, delta.get(), trigger);
			append(capture, delta.get(), start);
		});
	});
	PG_RETURN_POINTER(nullptr);
}

Datum
cache_ext_capture_row(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = trigger_data(fcinfo);
	instr_time start;

	/* ENABLE TRIGGER ALL turns this REPLICA trigger into an ordinary one. */
	if (SessionReplicationRole != SESSION_REPLICATION_ROLE_REPLICA)
		PG_RETURN_POINTER(nullptr);
	INSTR_TIME_SET_CURRENT(start);

	pg::guard([&] {
		Capture *capture = capture_of(trigger->tg_relation);
		BorrowedDelta delta(capture);

		pg::call([&] {
			TupleTableSlot *row = trigger->tg_trigslot;

			if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
				feed_change(capture, delta.get(), row, trigger->tg_newslot);
			else if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
				feed_change(capture, delta.get(), nullptr, row);
			else
				feed_change(capture, delta.get(), row, nullptr);
			append(capture, delta.get(), start);
		});
	});
	PG_RETURN_POINTER(nullptr);
}

Datum
cache_ext_capture_truncate(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = trigger_data(fcinfo);

	pg::guard([&] {
		Relation relation = trigger->tg_relation;
		Capture *capture = capture_of(relation);

		append_relation(capture, relation, -1);
		if (capture->watches != nullptr)
			invalidation::watch_truncate(capture->watches);
	});
	PG_RETURN_POINTER(nullptr);
}
}

} /* namespace cache_ext::statistics */
