/*-------------------------------------------------------------------------
 *
 * redis_link.cpp
 *		This process's connection to Redis; see redis_link.hpp.
 *
 * Everything here hangs off plain static pointers: FATAL leaves by exit(),
 * which runs the destructors of static objects but not those on the stack.
 *
 * An exchange that does not end normally leaves the connection with replies
 * under way that nobody expects.  Three nets catch that: the handler in
 * with_link() closes on every exception; in_flight() is looked at before each
 * use, in case a longjmp went past the handler; and before_shmem_exit closes
 * when the process leaves by FATAL in the middle of a wait.
 *
 *-------------------------------------------------------------------------
 */
#include <cstring>
#include <memory>
#include <optional>

#include "core/cache/envelope.hpp"
#include "core/redis/refusal.hpp"
#include "pg/guard.hpp"
#include "pg/idle_timer.hpp"
#include "pg/redis_endpoint.hpp"
#include "pg/redis_handshake.hpp"
#include "pg/redis_health.hpp"
#include "pg/redis_link.hpp"
#include "pg/settings.hpp"
#include "pg/transport.hpp"

extern "C" {
#include "storage/ipc.h"
}

namespace cache_ext::pg {

namespace {

struct Link
{
	explicit Link(const Endpoint &endpoint)
	    : fingerprint(endpoint.fingerprint), name(endpoint.name),
	      database(static_cast<uint32>(endpoint.address.database))
	{
	}

	Digest fingerprint;
	std::string name;
	uint32 database;
	Transport transport;
	redis::Connection protocol;
	ServerIdentity identity;
	uint64 number = 0;
	std::optional<RedisServer> described; /* for this key prefix */
	std::string prefix;
	bool spent = false; /* closed after its last replies, because of what they said */
};

} /* namespace */

static Link *link = nullptr;
static HealthOf health;
static uint64 last_number = 0;

/* A connection beside those that are counted: the background workers' own. */
static bool
is_worker(const ExchangeOptions &options)
{
	return options.ignore_backoff;
}

/*
 * When Redis falls silent many may be waiting for it.  The first to lose patience
 * tells all: nobody else's answer is going to come.  The worker has its own pace.
 */
static bool
others_have_failed()
{
	return health.overtaken();
}

static Deadline
deadline_in(int timeout_ms, bool worker)
{
	return Deadline(timeout_ms, worker ? nullptr : others_have_failed);
}

/* -------------------------------------------------------------------------
 * Opening and closing
 * -------------------------------------------------------------------------
 */

bool
redis_configured() noexcept
{
	try
	{
		return redis_endpoint().configured;
	}
	catch (...)
	{
		/* Out of memory: say yes, so that nothing is left unsent; the use itself will fail. */
		return true;
	}
}

std::string
redis_name()
{
	return redis_endpoint().name;
}

void
redis_disconnect() noexcept
{
	if (link == nullptr)
		return;
	end_idle_watch();
	delete link;
	link = nullptr;
}

/* Closed at once, while its number still says whose the last replies are. */
static void
give_up_link() noexcept
{
	end_idle_watch();
	link->transport.close();
	link->spent = true;
}

uint64
redis_connection() noexcept
{
	return link != nullptr && !link->protocol.in_flight() ? link->number : 0;
}

/* Has a place among the server's connections been taken for a link that is not open yet? */
static bool has_place = false;

static void
give_place_back() noexcept
{
	if (has_place)
		discount_connection();
	has_place = false;
}

extern "C" {
static void
cache_ext_close_link(int, Datum)
{
	abandon_resolver();
	redis_disconnect();
	give_place_back(); /* FATAL amid connecting runs no destructor */
	health.report_nothing();
}
}

static void
open_link(const Endpoint &endpoint, bool counted)
{
	Deadline deadline = deadline_in(connect_timeout_ms, !counted);
	auto opening = std::make_unique<Link>(endpoint);

	opening->transport.open(endpoint, deadline);
	opening->identity = shake_hands(endpoint, &opening->transport, &opening->protocol, deadline);
	opening->number = ++last_number;
	link = opening.release();
	begin_idle_watch(link->transport.descriptor(), counted);
}

/* Is the open connection still fit for use? */
static bool
is_usable(const Endpoint &endpoint)
{
	return !link->spent && !link->protocol.in_flight() &&
	       link->fingerprint == endpoint.fingerprint && link->transport.is_quiet();
}

/* -------------------------------------------------------------------------
 * What happened, for the others and for the log
 * -------------------------------------------------------------------------
 */

/*
 * Failures of the network follow one another in many forms and are one reason;
 * anything else is told again when it changes.
 */
static uint32
reason_for_log(const Error &error)
{
	if (strcmp(error.state().code, kConnectionFailure.code) == 0)
		return 1;
	return static_cast<uint32>(Digester().add(error.detail()).finish().low) | 2;
}

static void
note_failure(const Error &error)
{
	bool away = strcmp(error.state().code, kConnectionFailure.code) == 0 ||
	            strcmp(error.state().code, kProtocolViolation.code) == 0;
	std::string text = error.message();

	if (!error.detail().empty())
		text += ": " + error.detail();

	HealthChange change = health.report_failure(away ? FailureKind::kAway : FailureKind::kRefused,
	                                            reason_for_log(error), text.c_str());

	if (change.what != HealthChange::kFailed)
		return;
	call([&] {
		ereport(log_level,
		        (errmsg_internal("%s", error.message().c_str()),
		         error.detail().empty() ? 0 : errdetail_internal("%s", error.detail().c_str()),
		         errhint("Until it answers, queries and the memory of the server take over; "
		                 "invalidations are kept."),
		         errhidestmt(true)));
	});
}

static void
note_success(const std::string &name)
{
	HealthChange change = health.report_success();

	if (change.what == HealthChange::kNothing)
		return;
	call([&] {
		if (change.what == HealthChange::kConnected)
			ereport(log_level,
			        (errmsg("connected to Redis server \"%s\"", name.c_str()), errhidestmt(true)));
		else
			ereport(log_level, (errmsg_plural("reconnected to Redis server \"%s\" after %u try",
			                                  "reconnected to Redis server \"%s\" after %u tries",
			                                  change.tries, name.c_str(), change.tries),
			                    errhidestmt(true)));
	});
}

void
redis_note_refusal(const redis::Reply &reply)
{
	std::string name = redis_endpoint().name;
	std::string text = redis::readable(reply.text);

	if (!health.note_refusal(text.c_str()))
		return;
	call([&] {
		ereport(LOG,
		        (errmsg("Redis server \"%s\" refuses a command: %s", name.c_str(), text.c_str()),
		         errhint("Queries answer meanwhile."), errhidestmt(true)));
	});
}

HealthStatus
redis_health_status()
{
	health.set_endpoint(redis_endpoint().fingerprint);
	return health.status();
}

/*
 * After an error among the replies the connection is given up, so that the next
 * use looks anew who is there.  Not where a key merely holds something else;
 * and a worker stays with a server that serves at all: it tries again by itself,
 * what it removes from a full one makes room, and a name that it may not touch is
 * one among many.
 */
static void
judge_replies(const std::vector<redis::Reply> &replies, bool worker)
{
	using redis::Refusal;

	for (const redis::Reply &reply : replies)
	{
		if (!reply.is_error())
			continue;

		Refusal refusal = redis::classify_refusal(reply.text);
		bool serving = refusal == Refusal::kOther || refusal == Refusal::kFull;

		if (refusal == Refusal::kData || (worker && serving))
			continue;
		if (worker && refusal == Refusal::kPermission)
		{
			redis_note_refusal(reply);
			continue;
		}
		give_up_link();
		if (refusal == Refusal::kLogin)
			note_failure(refused_login(link->name, redis::readable(reply.text)));
		else if (refusal == Refusal::kNotServing)
			note_failure(not_serving(link->name, redis::readable(reply.text)));
		else
			redis_note_refusal(reply);
		return;
	}
}

/* The protocol and the encryption do not know whom they talk to. */
static Error
name_server(const Error &error, const std::string &name)
{
	if (strcmp(error.state().code, kProtocolViolation.code) == 0)
		return Error(error.state(), "unexpected answer from Redis server \"" + name + "\"",
		             error.detail());
	if (strcmp(error.state().code, kCannotConnect.code) == 0)
		return Error(error.state(),
		             "could not set up an encrypted connection to Redis server \"" + name + "\"",
		             error.detail(), error.hint());
	return error;
}

/* -------------------------------------------------------------------------
 * Asking
 * -------------------------------------------------------------------------
 */

/* One of the server's connections, given back unless it becomes the open link's. */
class Place
{
  public:
	explicit Place(bool counted)
	{
		has_place = counted && count_connection(max_connections);
		if (!counted || has_place)
			return;
		call([] {
			if (tell_about_connections())
				ereport(LOG, (errmsg("all %d connections to Redis are in use", max_connections),
				              errhint("Consider increasing cache_ext.max_connections."),
				              errhidestmt(true)));
		});
		throw Error(kTooManyConnections, "all connections to Redis are in use",
		            "The server holds as many as cache_ext.max_connections allows.");
	}
	~Place() { give_place_back(); }
	Place(const Place &) = delete;
	Place &operator=(const Place &) = delete;

	void keep() { has_place = false; }
};

/*
 * Refusals that cost nothing and say nothing about the server: it is not
 * configured, the wanted connection is gone, or it is not our turn to ask.
 */
static void
refuse_early(const Endpoint &endpoint, const ExchangeOptions &options)
{
	int timeout_ms = options.timeout_ms > 0 ? options.timeout_ms : command_timeout_ms;
	int64 longest_us = (int64{connect_timeout_ms} + timeout_ms + 1000) * 1000;

	if (link != nullptr && (!endpoint.configured || !is_usable(endpoint)))
		redis_disconnect();
	if (!endpoint.configured)
		throw Error(kConnectionFailure, "no Redis server is configured", {},
		            "Set cache_ext.redis_url.");
	if (options.only_connection != 0 && options.only_connection != redis_connection())
		throw Error(kConnectionFailure,
		            "the connection to Redis server \"" + endpoint.name + "\" has been replaced");
	health.set_endpoint(endpoint.fingerprint);
	Hurry hurry = options.impatient        ? Hurry::kNow
	              : options.ignore_backoff ? Hurry::kOwnPace
	                                       : Hurry::kNone;

	if (!health.ask(longest_us, hurry))
		throw Error(
		    kConnectionFailure, "Redis server \"" + endpoint.name + "\" has failed a moment ago",
		    std::string("It is not asked again before a pause has passed. The failure was: ") +
		        health.status().last_error);
}

static void
ensure_link(const Endpoint &endpoint, const ExchangeOptions &options)
{
	static bool registered = false;

	if (link != nullptr)
		return;
	if (!registered)
		call([] { before_shmem_exit(cache_ext_close_link, (Datum) 0); });
	registered = true;

	Place place(!is_worker(options));

	open_link(endpoint, !is_worker(options));
	place.keep();
}

/* Run fn with the link open; whatever goes wrong closes it. */
template <typename Fn>
static auto
with_link(const ExchangeOptions &options, Fn &&fn) -> std::invoke_result_t<Fn &>
{
	IdleWatchPause pause;
	const Endpoint &endpoint = redis_endpoint();
	std::string name = endpoint.name;
	std::optional<Error> failure;

	refuse_early(endpoint, options);
	try
	{
		ensure_link(endpoint, options);

		auto result = fn();

		note_success(name);
		return result;
	}
	catch (const Error &error)
	{
		redis_disconnect();
		if (strcmp(error.state().code, kTooManyConnections.code) == 0)
		{
			health.report_nothing();
			throw;
		}
		failure = name_server(error, name);
	}
	catch (...)
	{
		redis_disconnect();
		health.report_nothing();
		throw;
	}
	note_failure(*failure);
	throw *failure;
}

/* The prefix is looked at anew: a reload may have changed it under an open connection. */
static RedisServer
describe(Link *to)
{
	std::string_view prefix = key_prefix != nullptr ? key_prefix : "";

	if (!to->described || to->prefix != prefix)
	{
		to->prefix = prefix;
		to->described = {cache::digest_incarnation(to->identity.instance, to->database, prefix),
		                 to->identity.instance, to->identity.known, to->number};
	}
	return *to->described;
}

std::vector<redis::Reply>
redis_exchange(const redis::Request &request, const ExchangeOptions &options, RedisServer *server)
{
	return with_link(options, [&] {
		Deadline deadline = deadline_in(
		    options.timeout_ms > 0 ? options.timeout_ms : command_timeout_ms, is_worker(options));

		link->protocol.begin(request);
		link->transport.run(&link->protocol, deadline);

		std::vector<redis::Reply> replies = link->protocol.take_replies();

		if (server != nullptr)
			*server = describe(link);
		judge_replies(replies, is_worker(options));
		return replies;
	});
}

RedisServer
redis_server(const ExchangeOptions &options)
{
	return with_link(options, [] { return describe(link); });
}

} /* namespace cache_ext::pg */
