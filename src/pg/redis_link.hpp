/*-------------------------------------------------------------------------
 *
 * redis_link.hpp
 *		This process's connection to Redis.
 *
 * One lazy connection a process, chosen and opened in one place.  Every wait
 * is on the process's latch as well, ends at a deadline that covers the whole
 * call, and obeys query cancel.  A connection whose exchange did not end is
 * closed, never used again.
 *
 * All functions are C++: call them inside pg::guard().
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/base/digest.hpp"
#include "core/redis/connection.hpp"
#include "pg/redis_health.hpp"
#include "pg/server.hpp"

namespace cache_ext::pg {

/* What a connection is to those who remember things about it. */
struct RedisServer
{
	/* One life of server, Redis database and key prefix: what deliveries and nonces belong to. */
	Digest incarnation;
	Digest instance;   /* one life of the server alone: digest_instance() of what INFO says */
	bool identified;   /* false: it hides who it is, so nothing may rely on the two above */
	uint64 connection; /* number of this connection in this process, from 1; never used twice */
};

struct ExchangeOptions
{
	int timeout_ms = 0;          /* the whole exchange; 0: cache_ext.command_timeout */
	bool ignore_backoff = false; /* a worker: paces its attempts itself, its connection is extra */
	bool impatient = false;      /* ask although the pause after a failure is not over */
	uint64 only_connection = 0;  /* not 0: fail rather than use any other connection than this */
};

/* Is there an address, in the setting or in the server's environment?  Costs a comparison. */
bool redis_configured() noexcept;

/* "host:port/db" for messages; empty when not configured. */
std::string redis_name();

/*
 * Send the commands and return their replies, one a command, in order.  An
 * error reply is a reply (Reply::is_error), not an exception.  Opens the
 * connection first when there is none: that has its own deadline,
 * cache_ext.connect_timeout.  *server is the one that has answered.
 *
 * Throws Error: 08006 when Redis is not configured, cannot be reached or does not
 * answer in time, and at once while the pause after an earlier failure lasts;
 * 08001 when it cannot be verified; 28000 when it lets us not in; 08P01 when it
 * answers nonsense; 53300 when the server holds connections enough.  A query
 * cancel comes as PgError.
 * In each case the connection is closed.
 */
std::vector<redis::Reply> redis_exchange(const redis::Request &request,
                                         const ExchangeOptions &options = ExchangeOptions(),
                                         RedisServer *server = nullptr);

/* The server at the other end; connects when needed, throws as redis_exchange() does. */
RedisServer redis_server(const ExchangeOptions &options = ExchangeOptions());

/* A reply that is an error, for the log: told once until another follows, whoever meets it. */
void redis_note_refusal(const redis::Reply &reply);

/* What all processes have met at the endpoint of now. */
HealthStatus redis_health_status();

/* Number of the connection that is open now, 0 when there is none.  Never connects, never throws.
 */
uint64 redis_connection() noexcept;

/* Close it, if there is one; the next exchange opens another. */
void redis_disconnect() noexcept;

} /* namespace cache_ext::pg */
