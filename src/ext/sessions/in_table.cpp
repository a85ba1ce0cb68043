/*-------------------------------------------------------------------------
 *
 * in_table.cpp
 *		Sessions in a table of ours; see README.md.
 *
 * The only file that knows the layout of cache_ext_internal.session.  Rows are ordinary
 * rows of the caller's transaction, so reads see its snapshot and a rollback takes
 * writes back.  Reads go through the index; writes are statements, since nothing
 * simpler waits for another writer of the row, and judges what it finds then, as
 * PostgreSQL does.
 *
 * Users have no rights on the table.  Statements run as its owner, with operators that
 * no search_path can replace.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/sessions/sessions.hpp"

#include <string>

#include "core/base/error.hpp"
#include "core/policy/json_text.hpp"
#include "core/policy/session_life.hpp"
#include "ext/cache/cache.hpp"
#include "ext/invalidation/tables.hpp"
#include "ext/statistics/catalog.hpp"
#include "ext/statistics/sources.hpp"
#include "ext/worker.hpp"
#include "pg/guard.hpp"
#include "pg/memory.hpp"
#include "pg/objects.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(cache_ext_session_has_field);
}

namespace cache_ext::sessions {

namespace {

/* Columns as the extension's script declares them. */
namespace column {
enum
{
	id,
	data,
	expires_at,
	count
};
}

constexpr const char *kTable = "session";
constexpr const char *kKeyIndex = "session_pkey";

/* A step of the worker; the table is gone over at this pace whatever it holds. */
constexpr uint32 kPagesOfStep = 512;
constexpr int kRowsOfStep = 10000;
constexpr int kStepMs = 1000;
constexpr int kMsOfPage = 10; /* after a round, so that it costs the same share of the time */
constexpr int kLongestMs = 60 * 1000;

/* -------------------------------------------------------------------------
 * Statements
 * -------------------------------------------------------------------------
 */

/* Prepared at its first use. */
struct Statement
{
	const char *text;
	int count;
	Oid types[4];
	SPIPlanPtr plan;
};

Statement store = {
    "INSERT INTO cache_ext_internal.session (id, data, expires_at) VALUES ($1, $2, $3)"
    " ON CONFLICT (id) DO UPDATE SET data = excluded.data, expires_at = excluded.expires_at",
    3,
    {BYTEAOID, JSONBOID, TIMESTAMPTZOID},
    nullptr};
Statement lock = {"SELECT data, expires_at FROM cache_ext_internal.session"
                  " WHERE id OPERATOR(pg_catalog.=) $1 AND expires_at OPERATOR(pg_catalog.>) $2"
                  " FOR NO KEY UPDATE",
                  2,
                  {BYTEAOID, TIMESTAMPTZOID},
                  nullptr};
Statement extend = {"UPDATE cache_ext_internal.session SET expires_at = $2"
                    " WHERE id OPERATOR(pg_catalog.=) $1",
                    2,
                    {BYTEAOID, TIMESTAMPTZOID},
                    nullptr};
Statement renew = {"UPDATE cache_ext_internal.session SET data = $2, expires_at = $3"
                   " WHERE id OPERATOR(pg_catalog.=) $1",
                   3,
                   {BYTEAOID, JSONBOID, TIMESTAMPTZOID},
                   nullptr};
Statement rename = {"UPDATE cache_ext_internal.session SET id = $2"
                    " WHERE id OPERATOR(pg_catalog.=) $1 AND expires_at OPERATOR(pg_catalog.>) $3",
                    3,
                    {BYTEAOID, BYTEAOID, TIMESTAMPTZOID},
                    nullptr};
Statement end = {"DELETE FROM cache_ext_internal.session"
                 " WHERE id OPERATOR(pg_catalog.=) $1 RETURNING expires_at",
                 1,
                 {BYTEAOID},
                 nullptr};
Statement end_all = {"DELETE FROM cache_ext_internal.session"
                     " WHERE expires_at OPERATOR(pg_catalog.>) $3"
                     " AND cache_ext_internal.session_has_field(data, $1, $2)",
                     3,
                     {TEXTOID, TEXTOID, TIMESTAMPTZOID},
                     nullptr};

/* Runs it as the table's owner, and leaves SPI connected; returns how many rows it met. */
uint64
run(Statement *statement, Datum *arguments)
{
	statistics::AsOwner owner(statistics::internal_owner());

	if (statement->plan == nullptr)
	{
		SPIPlanPtr plan = SPI_prepare(statement->text, statement->count, statement->types);

		if (plan == nullptr || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare \"%s\"", statement->text);
		statement->plan = plan;
	}

	int result = SPI_execute_plan(statement->plan, arguments, nullptr, false, 0);

	if (result < 0)
		elog(ERROR, "could not execute \"%s\"", statement->text);
	owner.restore();
	return SPI_processed;
}

Datum
first_row(int number)
{
	bool null;

	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, number, &null);
}

/* -------------------------------------------------------------------------
 * Lives
 * -------------------------------------------------------------------------
 */

std::string_view
text_of(Jsonb *json)
{
	StringInfo text = makeStringInfo();

	(void) JsonbToCString(text, &json->root, VARSIZE(json));
	return {text->data, static_cast<size_t>(text->len)};
}

Datum
jsonb_of(const char *json)
{
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json));
}

/* A life and the JSON that says the same, in the current memory context. */
struct Life
{
	int64 ms;
	const char *json;
};

template <typename Decide>
Life
life_as(Decide &&decide)
{
	Life life = {0, nullptr};

	pg::guard([&] {
		policy::SessionLife decided = decide();
		const std::string &json = decided.json;

		life.ms = decided.ms;
		life.json = pg::call([&] { return pnstrdup(json.data(), json.size()); });
	});
	return life;
}

TimestampTz
after_ms(int64 ms)
{
	return GetCurrentTimestamp() + ms * 1000;
}

int64
default_life_ms()
{
	return pg::session_ttl_s * INT64CONST(1000);
}

/* A row that the snapshot sees and whose time is not over: calls take(data) with its JSON. */
template <typename Take>
void
take_row(HeapTuple row, TupleDesc columns, TimestampTz now, Take &&take)
{
	Datum values[column::count];
	bool nulls[column::count];

	heap_deform_tuple(row, columns, values, nulls);

	TimestampTz expires_at = DatumGetTimestampTz(values[column::expires_at]);

	if (expires_at > now)
		take(values, expires_at);
}

} /* namespace */

Jsonb *
get_from_table(const Sid &sid)
{
	PushActiveSnapshot(GetTransactionSnapshot());

	Relation table = invalidation::open_table(kTable, AccessShareLock);
	ScanKeyData key;
	Jsonb *found = nullptr;

	ScanKeyInit(&key, column::id + 1, BTEqualStrategyNumber, F_BYTEAEQ,
	            PointerGetDatum(fingerprint(sid.sid)));

	SysScanDesc scan = systable_beginscan(table, pg::internal_table(kKeyIndex), true,
	                                      GetActiveSnapshot(), 1, &key);
	HeapTuple row = systable_getnext(scan);

	if (HeapTupleIsValid(row))
		take_row(
		    row, RelationGetDescr(table), GetCurrentTimestamp(),
		    [&](Datum *values, TimestampTz) { found = DatumGetJsonbPCopy(values[column::data]); });
	systable_endscan(scan);
	table_close(table, AccessShareLock);
	PopActiveSnapshot();
	return found;
}

void
set_in_table(const Sid &sid, std::string_view json, int64 asked_ms)
{
	Life life = life_as(
	    [&] { return policy::life_when_set(json, asked_ms, default_life_ms(), cache::now_ms()); });

	if (life.ms <= 0)
	{
		(void) destroy_in_table(sid);
		return;
	}

	Datum arguments[] = {PointerGetDatum(fingerprint(sid.sid)), jsonb_of(life.json),
	                     TimestampTzGetDatum(after_ms(life.ms))};

	SPI_connect();
	(void) run(&store, arguments);
	SPI_finish();
	worker::note_committed_changes_soon(worker::Work::kSessions);
}

bool
touch_in_table(const Sid &sid)
{
	bytea *id = fingerprint(sid.sid);
	TimestampTz now = GetCurrentTimestamp();
	Datum which[] = {PointerGetDatum(id), TimestampTzGetDatum(now)};

	SPI_connect();

	bool there = run(&lock, which) > 0;

	if (there)
	{
		std::string_view json = text_of(DatumGetJsonbP(first_row(column::data)));
		TimestampTz expires_at = DatumGetTimestampTz(first_row(column::data + 1));
		Life life = life_as([&] {
			return policy::life_when_touched(json, (expires_at - now) / 1000, default_life_ms(),
			                                 cache::now_ms());
		});
		Datum until = TimestampTzGetDatum(Max(after_ms(life.ms), expires_at));

		/* What is large is not written anew without need. */
		if (json == life.json)
		{
			Datum arguments[] = {PointerGetDatum(id), until};

			(void) run(&extend, arguments);
		}
		else
		{
			Datum arguments[] = {PointerGetDatum(id), jsonb_of(life.json), until};

			(void) run(&renew, arguments);
		}
	}
	SPI_finish();
	return there;
}

bool
destroy_in_table(const Sid &sid)
{
	Datum arguments[] = {PointerGetDatum(fingerprint(sid.sid))};

	SPI_connect();

	bool there =
	    run(&end, arguments) > 0 && DatumGetTimestampTz(first_row(1)) > GetCurrentTimestamp();

	SPI_finish();
	return there;
}

bool
move_in_table(const Sid &sid, const Sid &to)
{
	Datum arguments[] = {PointerGetDatum(fingerprint(sid.sid)),
	                     PointerGetDatum(fingerprint(to.sid)),
	                     TimestampTzGetDatum(GetCurrentTimestamp())};

	SPI_connect();

	bool there = run(&rename, arguments) > 0;

	SPI_finish();
	return there;
}

int64
destroy_all_in_table(text *field, text *value)
{
	Datum arguments[] = {PointerGetDatum(field), PointerGetDatum(value),
	                     TimestampTzGetDatum(GetCurrentTimestamp())};

	SPI_connect();

	auto ended = static_cast<int64>(run(&end_all, arguments));

	SPI_finish();
	return ended;
}

void
list_table(TakeListed take, void *arg)
{
	Relation table = invalidation::open_table(kTable, AccessShareLock);
	TimestampTz now = GetCurrentTimestamp();
	TableScanDesc scan = table_beginscan_strat(table, GetActiveSnapshot(), 0, nullptr, true, false);
	HeapTuple row;

	while ((row = heap_getnext(scan, ForwardScanDirection)) != nullptr)
	{
		CHECK_FOR_INTERRUPTS();
		take_row(row, RelationGetDescr(table), now, [&](Datum *values, TimestampTz expires_at) {
			Listed listed = {shown(DatumGetByteaPP(values[column::id])), expires_at, true,
			                 text_of(DatumGetJsonbP(values[column::data]))};

			take(listed, arg);
		});
	}
	table_endscan(scan);
	table_close(table, AccessShareLock);
}

/* -------------------------------------------------------------------------
 * The worker's part
 * -------------------------------------------------------------------------
 */

/* Where the last step ended, and whether the steps since the table's start met sessions. */
static uint32 next_page = 0;
static bool met_sessions = false;

ExpiryTurn
remove_expired()
{
	ExpiryTurn turn = {true, false, kStepMs};

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());

	Oid oid = pg::internal_table(kTable);
	Relation table = OidIsValid(oid) ? table_open(oid, RowExclusiveLock) : nullptr;
	uint32 pages = table != nullptr ? RelationGetNumberOfBlocks(table) : 0;

	if (next_page >= pages)
	{
		next_page = 0;
		met_sessions = false;
	}
	if (pages > 0)
	{
		uint32 end = Min(next_page + kPagesOfStep, pages);
		auto *over = static_cast<ItemPointerData *>(palloc(sizeof(ItemPointerData) * kRowsOfStep));
		int count = 0;
		TimestampTz now = GetCurrentTimestamp();
		TableScanDesc scan =
		    table_beginscan_strat(table, GetActiveSnapshot(), 0, nullptr, true, false);
		HeapTuple row;

		heap_setscanlimits(scan, next_page, end - next_page);
		while (count < kRowsOfStep && (row = heap_getnext(scan, ForwardScanDirection)) != nullptr)
		{
			bool alive = false;

			CHECK_FOR_INTERRUPTS();
			take_row(row, RelationGetDescr(table), now,
			         [&](Datum *, TimestampTz) { alive = true; });
			met_sessions = met_sessions || alive;
			if (!alive)
				over[count++] = row->t_self;
		}
		table_endscan(scan);

		/* One that somebody is just changing is no longer over, or the next round's. */
		for (int i = 0; i < count; ++i)
		{
			TM_FailureData why;

			(void) table_tuple_delete(table, &over[i], GetCurrentCommandId(true),
			                          GetActiveSnapshot(), InvalidSnapshot, false, &why, false);
		}
		if (count < kRowsOfStep)
			next_page = end;
		turn.complete = next_page >= pages;
		turn.kept = met_sessions;
		if (turn.complete)
		{
			next_page = 0;
			turn.wait_ms =
			    static_cast<int>(Max(Min(pages, kLongestMs / kMsOfPage) * kMsOfPage, kStepMs));
		}
	}
	if (table != nullptr)
		table_close(table, NoLock);
	PopActiveSnapshot();
	CommitTransactionCommand();
	if (turn.complete)
		met_sessions = false;
	return turn;
}

} /* namespace cache_ext::sessions */

extern "C" Datum
cache_ext_session_has_field(PG_FUNCTION_ARGS)
{
	using namespace cache_ext;

	std::string_view json = sessions::text_of(PG_GETARG_JSONB_P(0));
	std::string_view field = pg::view(PG_GETARG_TEXT_PP(1));
	std::string_view value = pg::view(PG_GETARG_TEXT_PP(2));

	PG_RETURN_BOOL(pg::guard([&] { return policy::has_field(json, field, value); }));
}
