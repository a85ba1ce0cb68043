/*-------------------------------------------------------------------------
 *
 * commands.hpp
 *		Commands of a delivery on their way to Redis.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/base/error.hpp"
#include "core/redis/connection.hpp"
#include "ext/invalidation/plan.hpp"
#include "pg/redis_link.hpp"

namespace cache_ext::invalidation {

/* What leaves in one command. */
constexpr size_t kNamesInCommand = 500;

/* Texts from outside: bounded, one line, printable. */
std::string printable(std::string_view text);

/* A name for everybody to see, with or without the key prefix: a session's key is none. */
std::string printable_name(std::string_view name);

bool begins_with(std::string_view text, std::string_view start);

/* Redis does not let us touch what a command names; others are none the worse for it. */
class NotPermitted : public Error
{
  public:
	using Error::Error;
};

/* Raises what Redis has answered instead. */
void expect_good(const redis::Reply &reply);

/* All exchanges of a batch go over the connection that the batch began with. */
class Channel
{
  public:
	explicit Channel(const pg::RedisServer &server) : server_(server) {}

	std::vector<redis::Reply> run(const redis::Request &request) const;

	const pg::RedisServer &server() const { return server_; }

  private:
	pg::RedisServer server_;
};

/*
 * Commands on their way, in pipelines of bounded length.  Most replies only have
 * to be no errors; finish() has read them all.
 */
class Stream
{
  public:
	enum class Expect
	{
		kGood,
		kVersion, /* a lack of memory is noted */
		kKept,    /* for take_kept() */
		kMessage  /* a channel that we may not use is none of the keys' business */
	};

	explicit Stream(const Channel &channel) : channel_(channel) {}

	void add(const std::vector<std::string_view> &arguments, Expect expect = Expect::kGood);

	/* One command for many names: UNLINK a b c, SREM set a b c. */
	template <typename Name>
	void add_many(const std::vector<std::string_view> &command, const std::vector<Name> &names,
	              Expect expect = Expect::kGood)
	{
		for (size_t i = 0; i < names.size(); i += kNamesInCommand)
		{
			std::vector<std::string_view> arguments = command;

			for (size_t n = i; n < names.size() && n < i + kNamesInCommand; ++n)
				arguments.push_back(names[n]);
			add(arguments, expect);
		}
	}

	void finish();

	bool no_memory() const { return no_memory_; }
	std::vector<redis::Reply> take_kept() { return std::move(kept_); }

  private:
	void judge(redis::Reply reply, Expect expect);

	const Channel &channel_;
	redis::Request request_;
	std::vector<Expect> expected_;
	std::vector<redis::Reply> kept_;
	bool no_memory_ = false;
};

/* New versions of the buckets that a settled plan touches. */
class Versions
{
  public:
	explicit Versions(const Plan &plan);

	/* The floor, then all of them. */
	void send(Stream *stream, uint64 lsn) const;

	/*
	 * The same for a Redis without memory.  It refuses to write but never to remove,
	 * and a missing version voids what was stored under it as well: the next reader
	 * makes a random one.
	 */
	void remove(Stream *stream) const;

	bool empty() const { return plan_.touches.empty(); }
	std::string_view find(uint32 bucket) const; /* empty: it has none */

  private:
	std::string_view nonce(size_t number) const;
	std::vector<std::string> keys() const;

	const Plan &plan_;
	std::string random_;
};

/* As they are in Redis. */
class FullNames
{
  public:
	explicit FullNames(const Names &names);
	const Names &names() const { return names_; }

  private:
	std::string bytes_;
	Names names_;
};
std::vector<TagSet> full_sets(const std::vector<TagSet> &sets);

} /* namespace cache_ext::invalidation */
