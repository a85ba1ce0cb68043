/*-------------------------------------------------------------------------
 *
 * session_life.hpp
 *		How long a session lives, and what its cookie says of it.
 *
 * express-session keeps a cookie in the session's JSON; connect-redis takes the life
 * of the key from `cookie.expires` where that is a time, and has a setting of its own
 * where it is null.  So do we, and what we change in one we change in the other: a life
 * that is asked for is written to the cookie, unless that ends with the browser's own
 * session.  A session without a cookie stays without one.
 *
 * Times are milliseconds since 1970.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace cache_ext::policy {

/* The longest life: 10,000 years. */
constexpr int64_t kMaxLifeMs = int64_t{10000} * 366 * 24 * 3600 * 1000;

struct SessionLife
{
	int64_t ms;       /* zero or less: it is over */
	std::string json; /* with a cookie that says the same */
};

/*
 * A session that is stored.  Without a life that is asked for (0) its cookie decides,
 * else the default.  Throws Error(22023) when the cookie's time cannot be read.
 */
SessionLife life_when_set(std::string_view json, int64_t asked_ms, int64_t default_ms,
                          int64_t now_ms);

/*
 * A session in use gets its full life anew: that of its cookie (originalMaxAge), else
 * the default; never less than it had left.
 */
SessionLife life_when_touched(std::string_view json, int64_t left_ms, int64_t default_ms,
                              int64_t now_ms);

/* An identifier as express-session makes them, of 24 random bytes: 32 letters, digits, - and _. */
constexpr size_t kSessionIdBytes = 24;
std::string session_id(std::string_view random_bytes);

} /* namespace cache_ext::policy */
