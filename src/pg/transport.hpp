/*-------------------------------------------------------------------------
 *
 * transport.hpp
 *		A stream of bytes to Redis: unix socket, TCP, or TLS over TCP.
 *
 * The one place with a socket, and the one loop that waits for it.  Owns its
 * descriptor and counts it with the server's.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <memory>
#include <string>

#include "core/redis/adaptive_spin.hpp"
#include "core/redis/connection.hpp"
#include "core/redis/tls.hpp"
#include "pg/redis_endpoint.hpp"
#include "pg/resolver.hpp"
#include "pg/waiting.hpp"

namespace cache_ext::pg {

class Transport
{
  public:
	Transport() = default;
	~Transport() { close(); }
	Transport(const Transport &) = delete;
	Transport &operator=(const Transport &) = delete;

	/* Throws Error: 08006 when nobody is there, 08001 when it is not who it should be. */
	void open(const Endpoint &endpoint, const Deadline &deadline);
	void close() noexcept;

	/*
	 * Send what the protocol has to send and feed it what arrives, until its
	 * exchange is over.  Throws Error(08006) when the other end goes or the
	 * deadline passes, and what the protocol throws.
	 */
	void run(redis::Connection *protocol, const Deadline &deadline);

	/*
	 * Nothing under way in either direction, and the other end still there?
	 * Bytes that nobody asked for mean that the stream is out of step.
	 */
	bool is_quiet();

	int descriptor() const { return fd_; }

  private:
	[[noreturn]] void refuse(const std::string &reason) const;
	[[noreturn]] void lose(const std::string &reason) const;
	[[noreturn]] void lose_while_sending(int code);
	[[noreturn]] void run_late(const Deadline &deadline) const;

	void make_socket(int family);
	int connect_socket(const sockaddr *address, socklen_t length, const Deadline &deadline);
	void open_unix(const std::string &path, const Deadline &deadline);
	void open_tcp(const redis::Address &address, const Deadline &deadline);
	void encrypt(const redis::TlsSettings &settings, const Deadline &deadline);

	size_t send_some(std::string_view bytes);
	void send_cipher();
	void push(redis::Connection *protocol);
	bool has_to_send(const redis::Connection &protocol) const;
	size_t receive_raw(char *buffer, size_t size);
	size_t receive_some(char *buffer, size_t size);
	size_t receive_awake(char *buffer, size_t size);
	void feed(redis::Connection *protocol, size_t count);

	std::string name_;
	int fd_ = -1;
	Waiter waiter_;
	std::unique_ptr<redis::Tls> tls_;
	redis::AdaptiveSpin spin_;
};

} /* namespace cache_ext::pg */
