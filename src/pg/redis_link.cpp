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
 * redis_exchange() closes on every exception; in_flight() is looked at before
 * each use, in case a longjmp went past the handler; and before_shmem_exit
 * closes when the process leaves by FATAL in the middle of a wait.
 *
 *-------------------------------------------------------------------------
 */
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <optional>

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/cache/envelope.hpp"
#include "core/redis/address.hpp"
#include "pg/guard.hpp"
#include "pg/redis_health.hpp"
#include "pg/redis_link.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#endif
}

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

namespace cache_ext::pg {

using Clock = std::chrono::steady_clock;

namespace {

/* One point in time that all waits of a call share. */
class Deadline
{
  public:
	explicit Deadline(int timeout_ms)
	    : timeout_ms_(timeout_ms), end_(Clock::now() + std::chrono::milliseconds(timeout_ms))
	{
	}

	long remaining_ms() const
	{
		auto left = std::chrono::duration_cast<std::chrono::microseconds>(end_ - Clock::now());

		return left.count() <= 0 ? 0 : static_cast<long>((left.count() + 999) / 1000);
	}

	int timeout_ms() const { return timeout_ms_; }

  private:
	int timeout_ms_;
	Clock::time_point end_;
};

/* Where Redis is according to the settings and the environment of now. */
struct Choice
{
	unsigned int generation;
	bool configured;
	redis::Address address;
	bool health_known;
	RedisHealth *health; /* null when there is no room */
};

struct Link
{
	explicit Link(const Choice &choice)
	    : generation(choice.generation), address(choice.address), name(choice.address.name())
	{
	}
	~Link() { close(); }
	Link(const Link &) = delete;
	Link &operator=(const Link &) = delete;

	void close() noexcept;

	unsigned int generation;
	redis::Address address;
	std::string name;
	int fd = -1;
	WaitEventSet *events = nullptr;
	redis::Connection protocol;
	Digest instance{0, 0};
	bool identified = false;
	uint64 number = 0; /* 0 until the handshake is done */
};

/*
 * What is remembered after a failure.  The next attempt waits ten times as
 * long as the failed one took, so that a Redis that does not answer costs a
 * process at most about a tenth of its time, and a closed port, which costs
 * microseconds, is tried often.
 */
struct Backoff
{
	Clock::time_point not_before;
	int failures;
	uint32 reason; /* that the log was told last, 0: none */
};

constexpr auto kMinBackoff = std::chrono::milliseconds(100);
constexpr auto kMaxBackoff = std::chrono::seconds(10);
constexpr int kBackoffFactor = 10;

constexpr int kSocketEvent = 0; /* position in the wait event set */

} /* namespace */

static Choice *choice = nullptr;
static Link *link = nullptr;
constexpr Backoff kNoBackoff = {Clock::time_point::min(), 0, 0};

static Backoff backoff = kNoBackoff;
static uint64 last_number = 0;

/* -------------------------------------------------------------------------
 * Where
 * -------------------------------------------------------------------------
 */

static const char *
environment(const char *name)
{
	const char *value = getenv(name);

	return value != nullptr && *value != '\0' ? value : nullptr;
}

static void
read_environment(Choice *chosen)
{
	if (const char *url = environment("REDIS_URL"))
	{
		chosen->address = redis::parse_address(url);
		chosen->configured = true;
	}
	else if (const char *host = environment("REDIS_HOST"))
	{
		const char *port = environment("REDIS_PORT");
		const char *password = environment("REDIS_PASSWORD");
		std::string url = "redis://";

		/* Only to have host and port checked; a bare IPv6 address gets its brackets. */
		url += strchr(host, ':') != nullptr && *host != '[' ? "[" + std::string(host) + "]" : host;
		if (port != nullptr)
			url += std::string(":") + port;
		chosen->address = redis::parse_address(url);
		if (password != nullptr)
			chosen->address.password = password;
		chosen->configured = true;
	}
}

/* An environment that cannot be used counts as none, and the log says so once a process. */
static void
complain_about_environment(const Error &error)
{
	call([&] {
		ereport(LOG, (errmsg("the server's environment names no usable Redis: %s",
		                     error.message().c_str()),
		              errhint("Set cache_ext.redis_url.")));
	});
}

static const Choice &
current_choice()
{
	if (choice != nullptr && choice->generation == redis_settings_generation)
		return *choice;

	auto chosen = std::make_unique<Choice>();

	chosen->generation = redis_settings_generation;
	if (redis_url != nullptr && *redis_url != '\0')
	{
		chosen->address = redis::parse_address(redis_url);
		chosen->configured = true;
	}
	else
	{
		try
		{
			read_environment(chosen.get());
		}
		catch (const Error &error)
		{
			complain_about_environment(error);
		}
	}
	delete choice;
	choice = chosen.release();

	/* Another address deserves an attempt at once. */
	backoff = kNoBackoff;
	return *choice;
}

bool
redis_configured() noexcept
{
	if (choice != nullptr && choice->generation == redis_settings_generation)
		return choice->configured;
	try
	{
		return current_choice().configured;
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
	const Choice &chosen = current_choice();

	return chosen.configured ? chosen.address.name() : std::string();
}

/* -------------------------------------------------------------------------
 * Opening and closing
 * -------------------------------------------------------------------------
 */

void
Link::close() noexcept
{
	if (events != nullptr)
		FreeWaitEventSet(events);
	events = nullptr;
	if (fd >= 0)
	{
		::close(fd);
		ReleaseExternalFD();
	}
	fd = -1;
}

void
redis_disconnect() noexcept
{
	delete link;
	link = nullptr;
}

uint64
redis_connection() noexcept
{
	return link != nullptr && !link->protocol.in_flight() ? link->number : 0;
}

extern "C" {
static void
cache_ext_close_link(int, Datum)
{
	redis_disconnect();
}
}

[[noreturn]] static void
refuse_link(const Link &to, const std::string &reason)
{
	throw Error(kConnectionFailure, "could not connect to Redis server \"" + to.name + "\"",
	            reason);
}

/* The server is there, and we do not get in. */
[[noreturn]] static void
refuse_login(const Link &to, const std::string &reason)
{
	throw Error(kInvalidAuthorization, "could not log in to Redis server \"" + to.name + "\"",
	            reason);
}

static std::string
reason_of(int code)
{
	char buffer[128];

	/* The GNU and the POSIX form of strerror_r differ in their result; strerror() needs no thread
	 * safety here. */
	strlcpy(buffer, strerror(code), sizeof(buffer));
	return std::string("The system says: ") + buffer + ".";
}

/*
 * Sleep until the socket is ready for one of the events (a mask of WL_SOCKET_*)
 * or the deadline has passed, which gives false.
 */
static bool
wait_for_socket(Link *to, uint32 wanted, const Deadline &deadline)
{
	for (;;)
	{
		long remaining = deadline.remaining_ms();

		if (remaining <= 0)
			return false;

		bool ready = call([&] {
			WaitEvent event;

			CHECK_FOR_INTERRUPTS();
			ModifyWaitEvent(to->events, kSocketEvent, wanted, nullptr);
			if (WaitEventSetWait(to->events, remaining, &event, 1, PG_WAIT_EXTENSION) == 0)
				return false;
			if (event.events & WL_LATCH_SET)
			{
				ResetLatch(MyLatch);
				CHECK_FOR_INTERRUPTS();
				return false;
			}
			return true;
		});

		if (ready)
			return true;
	}
}

/* Wait a moment without a socket; false when the deadline has passed. */
static bool
pause_briefly(const Deadline &deadline)
{
	long remaining = std::min(deadline.remaining_ms(), 10L);

	if (remaining <= 0)
		return false;
	call([&] {
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, remaining,
		                 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	});
	return true;
}

/* The descriptor is counted by the server from here on; close() gives it back. */
static void
make_socket(Link *to, int family)
{
	if (!AcquireExternalFD())
		refuse_link(*to, "Too many files are open in this process.");
	to->fd = socket(family, SOCK_STREAM, 0);
	if (to->fd < 0)
	{
		int code = errno;

		ReleaseExternalFD();
		refuse_link(*to, reason_of(code));
	}
	if (!pg_set_noblock(to->fd) || fcntl(to->fd, F_SETFD, FD_CLOEXEC) < 0)
		refuse_link(*to, reason_of(errno));
#ifdef SO_NOSIGPIPE
	int on = 1;

	(void) setsockopt(to->fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof(on));
#endif
}

/* Registers socket, latch and postmaster once, so that a wait is one system call. */
static void
make_event_set(Link *to)
{
	call([&] {
#if PG_VERSION_NUM >= 170000
		to->events = CreateWaitEventSet(nullptr, 3);
#else
		to->events = CreateWaitEventSet(TopMemoryContext, 3);
#endif
		AddWaitEventToSet(to->events, WL_SOCKET_WRITEABLE, to->fd, nullptr, nullptr);
		AddWaitEventToSet(to->events, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, nullptr);
		AddWaitEventToSet(to->events, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, nullptr, nullptr);
	});
}

/* Connect the socket to one address; the result is 0 or an error number. */
static int
connect_socket(Link *to, const sockaddr *address, socklen_t length, const Deadline &deadline)
{
	while (connect(to->fd, address, length) < 0)
	{
		if (errno == EINTR)
			continue;
		/* A unix socket whose queue is full says EAGAIN and starts nothing. */
		if (errno == EAGAIN)
		{
			if (!pause_briefly(deadline))
				return ETIMEDOUT;
			continue;
		}
		if (errno != EINPROGRESS)
			return errno;
		if (!wait_for_socket(to, WL_SOCKET_CONNECTED, deadline))
			return ETIMEDOUT;

		int code = 0;
		socklen_t size = sizeof(code);

		if (getsockopt(to->fd, SOL_SOCKET, SO_ERROR, &code, &size) < 0)
			return errno;
		return code;
	}
	return 0;
}

static void
open_unix(Link *to, const Deadline &deadline)
{
	sockaddr_un address;

	memset(&address, 0, sizeof(address));
	address.sun_family = AF_UNIX;
	strlcpy(address.sun_path, to->address.path.c_str(), sizeof(address.sun_path));
	make_socket(to, AF_UNIX);
	make_event_set(to);
	if (int code =
	        connect_socket(to, reinterpret_cast<sockaddr *>(&address), sizeof(address), deadline))
		refuse_link(*to, reason_of(code));
}

using AddressList = std::unique_ptr<addrinfo, void (*)(addrinfo *)>;

/*
 * A number is no question to anybody.  A name is asked of the system's
 * resolver, which blocks and cannot be interrupted: its own timeout is then
 * the bound.
 */
static AddressList
resolve(const Link &to)
{
	addrinfo hints;
	addrinfo *found = nullptr;
	std::string port = std::to_string(to.address.port);

	memset(&hints, 0, sizeof(hints));
	hints.ai_socktype = SOCK_STREAM;
	hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
	int code = getaddrinfo(to.address.host.c_str(), port.c_str(), &hints, &found);

	if (code != 0)
	{
		hints.ai_flags = AI_NUMERICSERV;
		code = getaddrinfo(to.address.host.c_str(), port.c_str(), &hints, &found);
	}
	if (code != 0)
		refuse_link(to, std::string("The host name could not be resolved: ") + gai_strerror(code) +
		                    ".");
	return AddressList(found, freeaddrinfo);
}

static void
open_tcp(Link *to, const Deadline &deadline)
{
	AddressList list = resolve(*to);
	int code = ETIMEDOUT;

	for (const addrinfo *each = list.get(); each != nullptr; each = each->ai_next)
	{
		to->close();
		make_socket(to, each->ai_family);
		make_event_set(to);
		code = connect_socket(to, each->ai_addr, each->ai_addrlen, deadline);
		if (code == 0)
		{
			int on = 1;

			(void) setsockopt(to->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
			(void) setsockopt(to->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
			return;
		}
	}
	refuse_link(*to, reason_of(code));
}

/* -------------------------------------------------------------------------
 * Talking
 * -------------------------------------------------------------------------
 */

static void
lose_link(const Link &to, const std::string &reason)
{
	throw Error(kConnectionFailure, "lost the connection to Redis server \"" + to.name + "\"",
	            reason);
}

static void
send_some(Link *to)
{
	for (;;)
	{
		std::string_view bytes = to->protocol.outgoing();

		if (bytes.empty())
			return;

		ssize_t count = send(to->fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);

		if (count >= 0)
			to->protocol.sent(static_cast<size_t>(count));
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
			return;
		else if (errno != EINTR)
			lose_link(*to, reason_of(errno));
	}
}

static void
receive_some(Link *to)
{
	static char buffer[64 * 1024];

	while (to->protocol.in_flight())
	{
		ssize_t count = recv(to->fd, buffer, sizeof(buffer), 0);

		if (count > 0)
			to->protocol.received(std::string_view(buffer, static_cast<size_t>(count)));
		else if (count == 0)
			lose_link(*to, "The server closed the connection.");
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
			return;
		else if (errno != EINTR)
			lose_link(*to, reason_of(errno));

		/* Less than a full buffer: there is no more now, do not ask for the error. */
		if (count > 0 && static_cast<size_t>(count) < sizeof(buffer))
			return;
	}
}

static std::vector<redis::Reply>
converse(Link *to, const redis::Request &request, const Deadline &deadline)
{
	to->protocol.begin(request);
	send_some(to);
	while (to->protocol.in_flight())
	{
		uint32 wanted = WL_SOCKET_READABLE;

		if (!to->protocol.outgoing().empty())
			wanted |= WL_SOCKET_WRITEABLE;
		if (!wait_for_socket(to, wanted, deadline))
			throw Error(kConnectionFailure,
			            "Redis server \"" + to->name + "\" did not answer in time",
			            "The limit was " + std::to_string(deadline.timeout_ms()) + " ms.");
		send_some(to);
		receive_some(to);
	}
	return to->protocol.take_replies();
}

/* The value of "name:value" in the text that INFO returns. */
static std::string_view
info_field(std::string_view info, std::string_view name)
{
	size_t at = 0;

	while (at < info.size())
	{
		size_t end = info.find('\n', at);
		std::string_view line = info.substr(at, end == std::string_view::npos ? end : end - at);

		if (line.size() > name.size() && line.substr(0, name.size()) == name &&
		    line[name.size()] == ':')
		{
			line.remove_prefix(name.size() + 1);
			if (!line.empty() && line.back() == '\r')
				line.remove_suffix(1);
			return line;
		}
		if (end == std::string_view::npos)
			break;
		at = end + 1;
	}
	return {};
}

/*
 * The first line of the password file.  The file must be a plain one that only
 * the server's user can read, or root's and the group's as for a TLS key.
 */
static std::string
read_password_file(const Link &to)
{
	int file = open(redis_password_file, O_RDONLY | O_CLOEXEC);
	struct stat status;
	char buffer[4096];

	if (file < 0)
		refuse_login(to, std::string("The password file could not be opened. ") + reason_of(errno));

	int code = fstat(file, &status) < 0 ? errno : 0;
	ssize_t count = code == 0 ? read(file, buffer, sizeof(buffer)) : 0;

	if (count < 0)
		code = errno;
	::close(file);
	if (code != 0)
		refuse_login(to, std::string("The password file could not be read. ") + reason_of(code));

	mode_t forbidden = status.st_uid == 0 ? S_IRWXO | S_IWGRP | S_IXGRP : S_IRWXG | S_IRWXO;

	if (!S_ISREG(status.st_mode) || (status.st_uid != geteuid() && status.st_uid != 0) ||
	    (status.st_mode & forbidden) != 0)
		refuse_login(to, "The password file must be a plain file that belongs to the server's user "
		                 "with mode 0600 or less, or to root with mode 0640 or less.");

	std::string_view text(buffer, static_cast<size_t>(count));

	return std::string(text.substr(0, text.find_first_of("\r\n")));
}

static void
check_handshake(const Link &to, const redis::Reply &reply, const char *step)
{
	if (reply.is_error())
		refuse_login(to, std::string(step) + " was refused: " + redis::readable(reply.text));
}

/* Who we are, which database, and who the server is: one round trip. */
static void
shake_hands(Link *to, const Deadline &deadline)
{
	redis::Request request;
	std::string password = to->address.password;
	std::string database = std::to_string(to->address.database);
	bool authenticate;

	if (redis_password_file != nullptr && *redis_password_file != '\0')
		password = read_password_file(*to);
	authenticate = !password.empty() || !to->address.user.empty();
	if (authenticate && to->address.user.empty())
		request.add({"AUTH", password});
	else if (authenticate)
		request.add({"AUTH", to->address.user, password});
	if (to->address.database != 0)
		request.add({"SELECT", database});
	request.add({"CLIENT", "SETNAME", "cache_ext"});
	request.add({"INFO", "server"});
	request.add({"INFO", "replication"});

	std::vector<redis::Reply> replies = converse(to, request, deadline);
	size_t next = 0;

	if (authenticate)
		check_handshake(*to, replies[next++], "Authentication");
	if (to->address.database != 0)
		check_handshake(*to, replies[next++], "The choice of the database");
	++next; /* a name is a courtesy */
	check_handshake(*to, replies[next], "INFO");
	check_handshake(*to, replies[next + 1], "INFO");

	std::string_view run_id = info_field(replies[next].text, "run_id");
	std::string_view replication_id = info_field(replies[next + 1].text, "master_replid");

	to->identified = !run_id.empty() && !replication_id.empty();
	to->instance = cache::digest_instance(run_id, replication_id);
}

static void
open_link(const Choice &chosen)
{
	static bool registered = false;
	Deadline deadline(connect_timeout_ms);
	auto opening = std::make_unique<Link>(chosen);

	if (!registered)
		call([] { before_shmem_exit(cache_ext_close_link, (Datum) 0); });
	registered = true;

	if (opening->address.is_unix())
		open_unix(opening.get(), deadline);
	else
		open_tcp(opening.get(), deadline);
	shake_hands(opening.get(), deadline);
	opening->number = ++last_number;
	link = opening.release();
}

/*
 * Is the open connection still fit for use?  Bytes that arrive while nothing
 * was asked mean that it is out of step; an end means that the server has
 * closed it, which is no failure of the call that is about to begin.
 */
static bool
is_usable(const Link &to, const Choice &chosen)
{
	char byte;

	if (to.protocol.in_flight() || to.generation != chosen.generation)
		return false;
	return recv(to.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
	       (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
}

/* What all processes have met at the address of now. */
static RedisHealth *
shared_health()
{
	(void) current_choice();
	if (choice->configured && !choice->health_known)
	{
		Digest address = Digester().add(choice->address.name()).add(choice->address.user).finish();

		choice->health = call([&] { return redis_health(address); });
		choice->health_known = true;
	}
	return choice->health;
}

/*
 * Refusals that cost nothing and say nothing about the server: it is not
 * configured, its pause is not over, or the wanted connection is gone.
 */
static void
refuse_early(const ExchangeOptions &options)
{
	const Choice &chosen = current_choice();
	RedisHealth *health = shared_health();

	if (link != nullptr && !is_usable(*link, chosen))
		redis_disconnect();
	if (!chosen.configured)
	{
		redis_disconnect();
		throw Error(kConnectionFailure, "no Redis server is configured", {},
		            "Set cache_ext.redis_url.");
	}
	if (options.only_connection != 0 && options.only_connection != redis_connection())
		throw Error(kConnectionFailure, "the connection to Redis server \"" +
		                                    chosen.address.name() + "\" has been replaced");
	if (!options.ignore_backoff &&
	    ((link == nullptr && Clock::now() < backoff.not_before) || in_shared_pause(health)))
		throw Error(kConnectionFailure,
		            "Redis server \"" + chosen.address.name() + "\" has failed a moment ago",
		            "It is not asked again before a pause has passed.");
}

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
note_failure(const Error &error, Clock::time_point began)
{
	Clock::time_point now = Clock::now();
	auto pause =
	    std::clamp<Clock::duration>((now - began) * kBackoffFactor, kMinBackoff, kMaxBackoff);

	uint32 reason = reason_for_log(error);
	bool news = backoff.reason != reason;
	auto took = std::chrono::duration_cast<std::chrono::microseconds>(now - began);
	RedisHealth *health = shared_health();

	backoff.not_before = now + pause;
	backoff.reason = reason;
	++backoff.failures;
	if (health != nullptr)
		news = note_shared_failure(health, took.count(), reason);
	if (!news)
		return;
	call([&] {
		ereport(LOG, (errmsg_internal("%s", error.message().c_str()),
		              error.detail().empty() ? 0 : errdetail_internal("%s", error.detail().c_str()),
		              errhint("Queries answer meanwhile."), errhidestmt(true)));
	});
}

static void
note_success()
{
	RedisHealth *health = shared_health();
	uint32 failures = static_cast<uint32>(backoff.failures);

	if (health != nullptr)
		failures = note_shared_success(health);
	backoff = kNoBackoff;
	if (failures == 0)
		return;
	call([&] {
		ereport(LOG, (errmsg("Redis server \"%s\" answers again", link->name.c_str()),
		              errdetail("Failed attempts: %u.", failures), errhidestmt(true)));
	});
}

/* The protocol does not know whom it talks to. */
static Error
name_server(const Error &error)
{
	if (strcmp(error.state().code, kProtocolViolation.code) != 0)
		return error;
	return Error(error.state(), "unexpected answer from Redis server \"" + redis_name() + "\"",
	             error.detail());
}

/* Run fn with the link open; whatever goes wrong closes it. */
template <typename Fn>
static auto
with_link(const ExchangeOptions &options, Fn &&fn) -> std::invoke_result_t<Fn &>
{
	Clock::time_point began = Clock::now();
	std::optional<Error> failure;

	refuse_early(options);
	try
	{
		if (link == nullptr)
			open_link(current_choice());

		auto result = fn();

		note_success();
		return result;
	}
	catch (const Error &error)
	{
		redis_disconnect();
		failure = name_server(error);
	}
	catch (...)
	{
		redis_disconnect();
		throw;
	}
	note_failure(*failure, began);
	throw *failure;
}

/* The prefix is looked at anew: a reload may have changed it under an open connection. */
static RedisServer
describe(const Link &to)
{
	std::string_view prefix = key_prefix != nullptr ? key_prefix : "";

	return {
	    cache::digest_incarnation(to.instance, static_cast<uint32>(to.address.database), prefix),
	    to.instance, to.identified, to.number};
}

std::vector<redis::Reply>
redis_exchange(const redis::Request &request, const ExchangeOptions &options, RedisServer *server)
{
	return with_link(options, [&] {
		Deadline deadline(options.timeout_ms > 0 ? options.timeout_ms : command_timeout_ms);
		std::vector<redis::Reply> replies = converse(link, request, deadline);

		if (server != nullptr)
			*server = describe(*link);
		return replies;
	});
}

RedisServer
redis_server(const ExchangeOptions &options)
{
	return with_link(options, [] { return describe(*link); });
}

} /* namespace cache_ext::pg */
