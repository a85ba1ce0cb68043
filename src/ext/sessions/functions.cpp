/*-------------------------------------------------------------------------
 *
 * functions.cpp
 *		Sessions, as SQL calls them.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/sessions/sessions.hpp"

#include "core/policy/session_life.hpp"
#include "ext/cache/arguments.hpp"
#include "ext/cache/counters.hpp"
#include "ext/invalidation/items.hpp"
#include "pg/guard.hpp"
#include "pg/memory.hpp"
#include "pg/redis_link.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "access/xlog.h"
#include "utils/fmgrprotos.h"

PG_FUNCTION_INFO_V1(cache_ext_session_set);
PG_FUNCTION_INFO_V1(cache_ext_session_get);
PG_FUNCTION_INFO_V1(cache_ext_session_touch);
PG_FUNCTION_INFO_V1(cache_ext_session_destroy);
PG_FUNCTION_INFO_V1(cache_ext_session_regenerate);
PG_FUNCTION_INFO_V1(cache_ext_session_destroy_all);
}

namespace cache_ext::sessions {

using cache::count;
using cache::Tally;

bool
kept_in_redis() noexcept
{
	return pg::session_durability == pg::kSessionsInRedis && pg::redis_configured();
}

bytea *
fingerprint(std::string_view sid)
{
	text *bytes = cstring_to_text_with_len(sid.data(), static_cast<int>(sid.size()));

	return DatumGetByteaP(DirectFunctionCall1(sha256_bytea, PointerGetDatum(bytes)));
}

const char *
shown(const bytea *fingerprint)
{
	constexpr size_t kBytes = 8;
	static const char kDigits[] = "0123456789abcdef";
	auto *digits = static_cast<char *>(palloc0(2 * kBytes + 1));

	for (size_t i = 0; i < kBytes; ++i)
	{
		auto byte = static_cast<unsigned char>(pg::view(fingerprint)[i]);

		digits[2 * i] = kDigits[byte >> 4];
		digits[2 * i + 1] = kDigits[byte & 15];
	}
	return digits;
}

namespace {

/*
 * On a standby sessions in Redis can be changed like anywhere; a transaction that is
 * declared to read only keeps to it.
 */
void
refuse_read_only(const char *function)
{
	if (!kept_in_redis() || !RecoveryInProgress())
		PreventCommandIfReadOnly(function);
}

Sid
make_sid(std::string_view sid)
{
	auto *key = static_cast<char *>(palloc(kKeyPrefix.size() + sid.size()));

	memcpy(key, kKeyPrefix.data(), kKeyPrefix.size());
	memcpy(key + kKeyPrefix.size(), sid.data(), sid.size());
	return {{key + kKeyPrefix.size(), sid.size()}, {key, kKeyPrefix.size() + sid.size()}};
}

/* No message names it. */
Sid
sid_argument(FunctionCallInfo fcinfo, int number)
{
	Sid sid = make_sid(pg::view(PG_GETARG_TEXT_PP(number)));

	if (sid.sid.empty())
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("identifier of a session must not be empty")));
	invalidation::check_name(sid.key, "identifier of a session");
	invalidation::check_allowed(sid.key, "key of a session");
	return sid;
}

Sid
begin_write(FunctionCallInfo fcinfo, const char *function)
{
	refuse_read_only(function);
	if (PG_ARGISNULL(0))
		cache::refuse_null("identifier of a session");
	return sid_argument(fcinfo, 0);
}

std::string_view
data_argument(FunctionCallInfo fcinfo, int number)
{
	if (PG_ARGISNULL(number))
		cache::refuse_null("data of a session");

	Jsonb *data = PG_GETARG_JSONB_P(number);
	StringInfo json = makeStringInfo();

	if (!JB_ROOT_IS_OBJECT(data))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("data of a session must be a JSON object")));
	(void) JsonbToCString(json, &data->root, VARSIZE(data));
	if (cache::is_too_large(static_cast<size_t>(json->len)))
		ereport(ERROR,
		        (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("data of a session are too large"),
		         errdetail("They have %d bytes.", json->len),
		         errhint("Increase cache_ext.max_value_size.")));
	return {json->data, static_cast<size_t>(json->len)};
}

} /* namespace */

} /* namespace cache_ext::sessions */

using namespace cache_ext;
using namespace cache_ext::sessions;

extern "C" {

/* session_set(sid, data, ttl) */
Datum
cache_ext_session_set(PG_FUNCTION_ARGS)
{
	Sid sid = begin_write(fcinfo, "session_set()");
	std::string_view json = data_argument(fcinfo, 1);
	int64 asked_ms = cache::ttl_argument(fcinfo, 2, "session");

	if (kept_in_redis())
		set_in_redis(sid, json, asked_ms);
	else
		set_in_table(sid, json, asked_ms);
	count(Tally::kSessionSet);
	PG_RETURN_VOID();
}

/* session_get(sid): its data, NULL when there is none */
Datum
cache_ext_session_get(PG_FUNCTION_ARGS)
{
	Sid sid = sid_argument(fcinfo, 0);
	Jsonb *data = kept_in_redis() ? get_from_redis(sid) : get_from_table(sid);

	count(data != nullptr ? Tally::kSessionHit : Tally::kSessionMiss);
	if (data == nullptr)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(data);
}

/* session_touch(sid): is there one? */
Datum
cache_ext_session_touch(PG_FUNCTION_ARGS)
{
	Sid sid = begin_write(fcinfo, "session_touch()");
	bool there = kept_in_redis() ? touch_in_redis(sid) : touch_in_table(sid);

	count(Tally::kSessionTouched, there ? 1 : 0);
	PG_RETURN_BOOL(there);
}

/* session_destroy(sid): was there one? */
Datum
cache_ext_session_destroy(PG_FUNCTION_ARGS)
{
	Sid sid = begin_write(fcinfo, "session_destroy()");
	bool there = kept_in_redis() ? destroy_in_redis(sid) : destroy_in_table(sid);

	count(Tally::kSessionDestroyed, there ? 1 : 0);
	PG_RETURN_BOOL(there);
}

/* session_regenerate(sid): the new one, NULL when there is no session */
Datum
cache_ext_session_regenerate(PG_FUNCTION_ARGS)
{
	Sid sid = begin_write(fcinfo, "session_regenerate()");
	char random[policy::kSessionIdBytes];
	text *fresh = nullptr;

	if (!pg_strong_random(random, sizeof(random)))
		ereport(ERROR,
		        (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate random values")));
	pg::guard([&] {
		std::string id = policy::session_id({random, sizeof(random)});

		fresh = pg::call(
		    [&] { return cstring_to_text_with_len(id.data(), static_cast<int>(id.size())); });
	});

	Sid to = make_sid(pg::view(fresh));

	invalidation::check_allowed(to.key, "key of a session");
	if (!(kept_in_redis() ? move_in_redis(sid, to) : move_in_table(sid, to)))
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(fresh);
}

/* session_destroy_all(field, value): how many, when the transaction commits */
Datum
cache_ext_session_destroy_all(PG_FUNCTION_ARGS)
{
	text *field;
	text *value;
	int64 named;

	PreventCommandIfReadOnly("session_destroy_all()");
	if (PG_ARGISNULL(0))
		cache::refuse_null("field of sessions");
	if (PG_ARGISNULL(1))
		cache::refuse_null("value of sessions' field");
	field = PG_GETARG_TEXT_PP(0);
	value = PG_GETARG_TEXT_PP(1);
	invalidation::check_name(pg::view(field), "field of sessions");
	invalidation::check_allowed(kKeyPrefix, "keys of sessions");

	named = kept_in_redis() ? destroy_all_in_redis(pg::view(field), pg::view(value))
	                        : destroy_all_in_table(field, value);
	count(Tally::kSessionDestroyed, static_cast<uint64>(named));
	PG_RETURN_INT64(named);
}
}
