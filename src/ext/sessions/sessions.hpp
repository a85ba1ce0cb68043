/*-------------------------------------------------------------------------
 *
 * sessions.hpp
 *		Sessions of web applications: where they are kept, and how each place is
 *		spoken to.
 *
 * A session has a *sid*, which is a credential: whoever knows it has the session.  It
 * appears in no message, no log, no event and no view, and the table knows only its
 * SHA-256.  In Redis the key is "sess:<sid>", as connect-redis names it.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string_view>

#include "core/invalidation/bucket.hpp"
#include "pg/server.hpp"

extern "C" {
#include "utils/jsonb.h"
#include "utils/timestamp.h"
}

namespace cache_ext::sessions {

/* What stands before a sid in Redis, after the key prefix. */
constexpr std::string_view kKeyPrefix = invalidation::kSessionPrefix;

/* In Redis, or in our table?  Decided anew with each call. */
bool kept_in_redis() noexcept;

/* A sid and its name in Redis, both in the current memory context. */
struct Sid
{
	std::string_view sid;
	std::string_view key; /* without the key prefix */
};

/* All of the following are plain and may raise: call them with no C++ object alive. */

Jsonb *get_from_redis(const Sid &sid);
void set_in_redis(const Sid &sid, std::string_view json, int64 asked_ms);
bool touch_in_redis(const Sid &sid);
bool destroy_in_redis(const Sid &sid);
bool move_in_redis(const Sid &sid, const Sid &to);

/* Names the sessions with this field; they go when the transaction commits.  How many? */
int64 destroy_all_in_redis(std::string_view field, std::string_view value);

Jsonb *get_from_table(const Sid &sid);
void set_in_table(const Sid &sid, std::string_view json, int64 asked_ms);
bool touch_in_table(const Sid &sid);
bool destroy_in_table(const Sid &sid);
bool move_in_table(const Sid &sid, const Sid &to);
int64 destroy_all_in_table(text *field, text *value);

/* For session_list. */
struct Listed
{
	const char *session; /* the first digits of the sid's SHA-256 */
	TimestampTz expires_at;
	bool expires;
	std::string_view json;
};
using TakeListed = void (*)(const Listed &listed, void *arg);
void list_redis(TakeListed take, void *arg);
void list_table(TakeListed take, void *arg);

/* SHA-256 of the sid, and its first digits as people see them. */
bytea *fingerprint(std::string_view sid);
const char *shown(const bytea *fingerprint);

/*
 * The worker's part: removes rows whose time is over, a bounded stretch of the table a
 * turn.  Runs a transaction of its own.
 */
struct ExpiryTurn
{
	bool complete; /* that was the end of the table */
	bool kept;     /* there are sessions whose time will come */
	int wait_ms;   /* until the next turn: the larger the table, the longer after its end */
};
ExpiryTurn remove_expired();

} /* namespace cache_ext::sessions */
