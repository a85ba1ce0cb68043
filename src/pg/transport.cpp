/*-------------------------------------------------------------------------
 *
 * transport.cpp
 *		A stream of bytes to Redis; see transport.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "pg/guard.hpp"
#include "pg/transport.hpp"

extern "C" {
#include "miscadmin.h"
#include "storage/fd.h"
}

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

namespace cache_ext::pg {

/* One piece of what arrives; shared by all connections of the process, which take turns. */
static char arrived[64 * 1024];

/* About what it takes to fall asleep and to be woken. */
constexpr std::chrono::microseconds kSpin{40};

static std::string
reason_of(int code)
{
	return std::string("The system says: ") + strerror(code) + ".";
}

void
Transport::refuse(const std::string &reason) const
{
	throw Error(kConnectionFailure, "could not connect to Redis server \"" + name_ + "\"", reason);
}

void
Transport::lose(const std::string &reason) const
{
	throw Error(kConnectionFailure, "lost the connection to Redis server \"" + name_ + "\"",
	            reason);
}

void
Transport::run_late(const Deadline &deadline) const
{
	throw Error(kConnectionFailure, "Redis server \"" + name_ + "\" did not answer in time",
	            "The limit was " + std::to_string(deadline.timeout_ms()) + " ms.");
}

/* -------------------------------------------------------------------------
 * Opening and closing
 * -------------------------------------------------------------------------
 */

void
Transport::close() noexcept
{
	waiter_.close();
	tls_.reset();
	if (fd_ >= 0)
	{
		::close(fd_);
		ReleaseExternalFD();
	}
	fd_ = -1;
}

/* The descriptor is counted by the server from here on; close() gives it back. */
void
Transport::make_socket(int family)
{
	close();
	if (!AcquireExternalFD())
		refuse("Too many files are open in this process.");
	fd_ = socket(family, SOCK_STREAM, 0);
	if (fd_ < 0)
	{
		int code = errno;

		ReleaseExternalFD();
		refuse(reason_of(code));
	}
	if (!pg_set_noblock(fd_) || fcntl(fd_, F_SETFD, FD_CLOEXEC) < 0)
		refuse(reason_of(errno));
#ifdef SO_NOSIGPIPE
	int on = 1;

	(void) setsockopt(fd_, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof(on));
#endif
	waiter_.open(fd_);
}

/* Connect the socket to one address; the result is 0 or an error number. */
int
Transport::connect_socket(const sockaddr *address, socklen_t length, const Deadline &deadline)
{
	while (connect(fd_, address, length) < 0)
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
		if (errno != EINPROGRESS && errno != EALREADY)
			return errno == EISCONN ? 0 : errno;
		if (!waiter_.wait(WL_SOCKET_CONNECTED, deadline))
			return ETIMEDOUT;

		int code = 0;
		socklen_t size = sizeof(code);

		if (getsockopt(fd_, SOL_SOCKET, SO_ERROR, &code, &size) < 0)
			return errno;
		return code;
	}
	return 0;
}

void
Transport::open_unix(const std::string &path, const Deadline &deadline)
{
	sockaddr_un address;

	memset(&address, 0, sizeof(address));
	address.sun_family = AF_UNIX;
	strlcpy(address.sun_path, path.c_str(), sizeof(address.sun_path));
	make_socket(AF_UNIX);
	if (int code =
	        connect_socket(reinterpret_cast<sockaddr *>(&address), sizeof(address), deadline))
		refuse(reason_of(code));
}

/* Each address of a name gets its share of the time, so a dead one hides no other. */
void
Transport::open_tcp(const redis::Address &where, const Deadline &deadline)
{
	std::string why;
	std::vector<SocketAddress> list = resolve_host(where.host, where.port, deadline, &why);
	int code = 0;

	if (list.empty())
		refuse(why);
	for (size_t i = 0; i < list.size(); ++i)
	{
		int on = 1;

		make_socket(list[i].storage.ss_family);
		code = connect_socket(list[i].get(), list[i].length, deadline.share(list.size() - i));
		if (code != 0)
			continue;
		(void) setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		(void) setsockopt(fd_, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
		return;
	}
	refuse(reason_of(code));
}

void
Transport::encrypt(const redis::TlsSettings &settings, const Deadline &deadline)
{
	tls_ = std::make_unique<redis::Tls>(settings);
	for (;;)
	{
		bool done = tls_->shake_hands();

		send_cipher();
		if (done)
			return;

		uint32 wanted = WL_SOCKET_READABLE;

		if (!tls_->outgoing().empty())
			wanted |= WL_SOCKET_WRITEABLE;
		if (!waiter_.wait(wanted, deadline))
			run_late(deadline);
		send_cipher();
		if (size_t count = receive_raw(arrived, sizeof(arrived)))
			tls_->received({arrived, count});
	}
}

void
Transport::open(const Endpoint &endpoint, const Deadline &deadline)
{
	name_ = endpoint.name;
	if (endpoint.address.is_unix())
		open_unix(endpoint.address.path, deadline);
	else
		open_tcp(endpoint.address, deadline);
	if (endpoint.address.encrypted)
		encrypt(redis_tls_settings(endpoint), deadline);
}

/* -------------------------------------------------------------------------
 * Bytes
 * -------------------------------------------------------------------------
 */

/* How many bytes the system takes now; may be 0. */
size_t
Transport::send_some(std::string_view bytes)
{
	for (;;)
	{
		ssize_t count = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);

		if (count >= 0)
			return static_cast<size_t>(count);
		if (errno == EAGAIN || errno == EWOULDBLOCK)
			return 0;
		if (errno != EINTR)
			lose_while_sending(errno);
	}
}

/* What the other end said before it went tells more than that it has gone. */
void
Transport::lose_while_sending(int code)
{
	char byte;

	if (tls_ != nullptr)
		while (receive_some(&byte, 1) > 0)
			;
	lose(reason_of(code));
}

void
Transport::send_cipher()
{
	while (!tls_->outgoing().empty())
	{
		size_t count = send_some(tls_->outgoing());

		if (count == 0)
			return;
		tls_->sent(count);
	}
}

/* Send as much of what the protocol has to say as can leave now. */
void
Transport::push(redis::Connection *protocol)
{
	if (tls_ != nullptr)
		send_cipher();
	while (!protocol->outgoing().empty())
	{
		size_t count;

		if (tls_ != nullptr)
		{
			count = tls_->write(protocol->outgoing());
			send_cipher();
		}
		else
			count = send_some(protocol->outgoing());
		if (count == 0)
			return;
		protocol->sent(count);
	}
}

bool
Transport::has_to_send(const redis::Connection &protocol) const
{
	return !protocol.outgoing().empty() || (tls_ != nullptr && !tls_->outgoing().empty());
}

/* What has arrived at the socket, 0 when that is nothing. */
size_t
Transport::receive_raw(char *buffer, size_t size)
{
	for (;;)
	{
		ssize_t count = recv(fd_, buffer, size, 0);

		if (count > 0)
			return static_cast<size_t>(count);
		if (count == 0)
			lose("The server closed the connection.");
		if (errno == EAGAIN || errno == EWOULDBLOCK)
			return 0;
		if (errno != EINTR)
			lose(reason_of(errno));
	}
}

/* The same behind the encryption. */
size_t
Transport::receive_some(char *buffer, size_t size)
{
	if (tls_ == nullptr)
		return receive_raw(buffer, size);
	for (;;)
	{
		if (size_t count = tls_->read(buffer, size))
			return count;
		if (tls_->closed())
			lose("The server closed the connection.");

		char cipher[16 * 1024];
		size_t count = receive_raw(cipher, sizeof(cipher));

		if (count == 0)
			return 0;
		tls_->received({cipher, count});
	}
}

/* What arrives before sleeping would have paid; 0 when that is nothing, or was not tried. */
size_t
Transport::receive_awake(char *buffer, size_t size)
{
	if (!spin_.wanted())
		return 0;
	for (auto end = Deadline::Clock::now() + kSpin; Deadline::Clock::now() < end;)
		if (size_t count = receive_some(buffer, size))
		{
			spin_.succeeded();
			return count;
		}
	spin_.failed();
	return 0;
}

/* Hand over what is in `arrived`, and what else has come. */
void
Transport::feed(redis::Connection *protocol, size_t count)
{
	while (count > 0)
	{
		protocol->received({arrived, count});

		/* Less than a full buffer: there is no more now, do not ask for the error. */
		if (!protocol->in_flight() || (tls_ == nullptr && count < sizeof(arrived)))
			return;
		count = receive_some(arrived, sizeof(arrived));
	}
}

/* Awake only once: whoever trickles must meet the deadline.  And a loop of exchanges that are all
 * answered meanwhile never waits, so a cancel is looked for here. */
void
Transport::run(redis::Connection *protocol, const Deadline &deadline)
{
	if (INTERRUPTS_PENDING_CONDITION())
		call([] { CHECK_FOR_INTERRUPTS(); });
	push(protocol);
	if (protocol->in_flight() && !has_to_send(*protocol))
		feed(protocol, receive_awake(arrived, sizeof(arrived)));
	while (protocol->in_flight())
	{
		uint32 wanted = WL_SOCKET_READABLE;

		if (has_to_send(*protocol))
			wanted |= WL_SOCKET_WRITEABLE;
		if (!waiter_.wait(wanted, deadline))
			run_late(deadline);
		push(protocol);
		feed(protocol, receive_some(arrived, sizeof(arrived)));
	}
}

bool
Transport::is_quiet()
{
	char byte;

	if (fd_ < 0)
		return false;
	if (tls_ != nullptr)
	{
		/* Messages of TLS itself, such as tickets, may come at any time. */
		try
		{
			return receive_some(&byte, 1) == 0;
		}
		catch (const Error &)
		{
			return false;
		}
	}
	return recv(fd_, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
	       (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
}

} /* namespace cache_ext::pg */
