/*-------------------------------------------------------------------------
 *
 * redis_watch.cpp
 *		Commands that Redis executes only when nothing has changed meanwhile;
 *		see redis_watch.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/cache/redis_watch.hpp"

#include <iterator>

#include "ext/cache/conversation.hpp"

namespace cache_ext::cache {

using redis::Reply;

/* Each WATCH and each end of one gets a number, so that a watch knows that it still holds. */
static uint64 last_watch = 0;
static bool watching = false;

bool
RedisWatch::begin(const std::vector<std::string> &names, pg::RedisServer *server,
                  const std::vector<Command> &look, std::vector<Reply> *seen)
{
	std::vector<std::string_view> arguments{"WATCH"};
	redis::Request request;

	arguments.insert(arguments.end(), names.begin(), names.end());
	if (watching)
		request.add({"UNWATCH"});
	request.add(arguments);
	for (const Command &command : look)
		request.add(command);

	auto replies = ask(request, server);

	watching = false;
	number_ = ++last_watch;
	if (!replies)
		return false;

	auto answer = replies->end() - static_cast<std::ptrdiff_t>(look.size()) - 1;

	if (!answer->is_ok())
	{
		if (answer->is_error())
			pg::redis_note_refusal(*answer);
		else
			pg::redis_disconnect();
		return false;
	}
	if (seen != nullptr)
		seen->assign(std::make_move_iterator(answer + 1), std::make_move_iterator(replies->end()));
	watching = true;
	connection_ = server->connection;
	return true;
}

RedisWatch::Outcome
RedisWatch::execute(std::initializer_list<std::string_view> command, Reply *reply)
{
	return execute_all({Command(command)}, reply);
}

RedisWatch::Outcome
RedisWatch::execute_all(const std::vector<Command> &commands, Reply *reply)
{
	redis::Request request;

	if (number_ != last_watch || pg::redis_connection() != connection_)
		return Outcome::kConflict;
	request.add({"MULTI"});
	for (const Command &command : commands)
		request.add(command);
	request.add({"EXEC"});
	watching = false;
	++last_watch;

	auto replies = ask(request, nullptr, connection_);

	if (!replies || note_first_refusal(*replies))
		return Outcome::kUnavailable;

	Reply &results = replies->back();

	if (results.is_nil())
		return Outcome::kConflict;
	if (!results.is_array())
	{
		pg::redis_disconnect();
		return Outcome::kUnavailable;
	}
	if (note_first_refusal(results.elements))
		return Outcome::kUnavailable;
	if (reply != nullptr && !results.elements.empty())
		*reply = std::move(results.elements.front());
	return Outcome::kDone;
}

} /* namespace cache_ext::cache */
