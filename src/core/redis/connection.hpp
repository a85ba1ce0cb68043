/*-------------------------------------------------------------------------
 *
 * connection.hpp
 *		The protocol of one connection: bytes out, bytes in, replies.
 *
 * Knows no socket and no clock.  hiredis formats commands and cuts the stream
 * into replies; the limits are ours, because a server that lies about lengths
 * must cost neither memory nor stack.
 *
 * A connection that has failed stays failed: after a protocol error, or when
 * the caller stopped in the middle of an exchange, nobody knows which reply
 * comes next, so it is thrown away.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <cstddef>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/redis/reply.hpp"

struct redisReader;

namespace cache_ext::redis {

/* What one reply may cost. */
struct Limits
{
	size_t reply_bytes = size_t{64} * 1024 * 1024; /* on the wire, all elements together */
	size_t elements = 1024 * 1024;                 /* of all arrays of one reply together */
	int depth = 4;                                 /* nested arrays */
};

/*
 * Commands that leave together; they are encoded as they are added, so the
 * arguments need to live no longer than the call.  Arguments are data: nothing
 * in them can end a command.
 */
class Request
{
  public:
	Request &add(std::initializer_list<std::string_view> arguments)
	{
		return add(arguments.begin(), arguments.size());
	}
	Request &add(const std::vector<std::string_view> &arguments)
	{
		return add(arguments.data(), arguments.size());
	}
	Request &add(const std::string_view *arguments, size_t count);

	const std::string &bytes() const { return bytes_; }
	size_t commands() const { return commands_; }
	bool empty() const { return commands_ == 0; }

  private:
	std::string bytes_;
	size_t commands_ = 0;
};

class Connection
{
  public:
	explicit Connection(const Limits &limits = Limits());

	/* Start an exchange.  Only when no other is under way. */
	void begin(const Request &request);

	/* Bytes still to be sent; call sent() with how many of them went out. */
	std::string_view outgoing() const;
	void sent(size_t count);

	/* Bytes that arrived.  Throws Error(08P01) when they cannot be what was asked for. */
	void received(std::string_view bytes);

	/* True from begin() until the last reply is complete, and for ever after an error. */
	bool in_flight() const { return failed_ || expected_ > 0; }
	bool failed() const { return failed_; }

	/* The replies of the exchange, in the order of the commands; only when not in_flight(). */
	std::vector<Reply> take_replies();

  private:
	/* What hiredis's callbacks may use while they build a reply. */
	struct Building
	{
		Limits limits;
		size_t elements = 0;
		const char *broken = nullptr;
	};

	struct Functions; /* hiredis's callbacks */

	struct FreeReader
	{
		void operator()(redisReader *reader) const;
	};

	[[noreturn]] void fail(const char *what);
	void collect();

	Limits limits_;
	std::unique_ptr<Building> building_;
	std::unique_ptr<redisReader, FreeReader> reader_;
	std::string outgoing_;
	size_t sent_ = 0;
	size_t expected_ = 0;
	size_t unfinished_bytes_ = 0; /* fed since the last complete reply */
	bool failed_ = false;
	std::vector<Reply> replies_;
};

} /* namespace cache_ext::redis */
