/*-------------------------------------------------------------------------
 *
 * redis_watch.hpp
 *		Commands that Redis executes only when nothing has changed meanwhile.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "core/redis/reply.hpp"
#include "pg/redis_link.hpp"

namespace cache_ext::cache {

/*
 * Names that Redis watches for us, so that a command is executed only when none
 * of them has changed.  A connection has one set of watched names: a watch that
 * somebody else has ended meanwhile (a nested cache_get in a query) executes nothing.
 */
class RedisWatch
{
  public:
	enum class Outcome
	{
		kDone,
		kConflict,   /* something has changed, or the watch is over */
		kUnavailable /* nobody knows: Redis is away or refuses */
	};

	using Command = std::vector<std::string_view>;

	/*
	 * False: Redis is away or refuses, nothing is watched.  What is looked at right after
	 * the watch has begun travels with it; its replies may be errors.
	 */
	bool begin(const std::vector<std::string> &names, pg::RedisServer *server,
	           const std::vector<Command> &look = {}, std::vector<redis::Reply> *seen = nullptr);

	Outcome execute(std::initializer_list<std::string_view> command, redis::Reply *reply = nullptr);

	/* All of them or none; *reply is that of the first. */
	Outcome execute_all(const std::vector<Command> &commands, redis::Reply *reply = nullptr);

  private:
	uint64 number_ = 0;
	uint64 connection_ = 0;
};

} /* namespace cache_ext::cache */
