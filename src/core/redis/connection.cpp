/*-------------------------------------------------------------------------
 *
 * connection.cpp
 *		The protocol of one connection; see connection.hpp.
 *
 * hiredis is C: its callbacks let no exception out.  They note what is wrong
 * in Building and return NULL, which hiredis takes for lack of memory and
 * stops at.
 *
 *-------------------------------------------------------------------------
 */
#include <algorithm>
#include <new>

#include <hiredis/hiredis.h>

#include "core/base/error.hpp"
#include "core/redis/connection.hpp"

namespace cache_ext::redis {

/* A status or an error is a line; no server has so much to say. */
constexpr size_t kLongestLine = 64 * 1024;

/* Of an announced count: room for the answers of most commands. */
constexpr size_t kBelievedElements = 16;

constexpr const char *kUnexpectedType = "an unexpected type";

struct Connection::Functions
{
	static Building *building(const redisReadTask *task)
	{
		return static_cast<Building *>(task->privdata);
	}

	static void *refuse(const redisReadTask *task, const char *why)
	{
		building(task)->broken = why;
		return nullptr;
	}

	/*
	 * Give the reply its place: alone, or as the next element of its parent.
	 * Elements are appended as they come, because an announced count is only a
	 * claim.  That moves earlier elements, to which hiredis no longer points:
	 * it holds the chain of unfinished arrays, each the last of its parent.
	 */
	static void *place(const redisReadTask *task, Reply &&reply)
	{
		if (task->parent == nullptr)
			return new Reply(std::move(reply));

		auto *parent = static_cast<Reply *>(task->parent->obj);

		parent->elements.push_back(std::move(reply));
		return &parent->elements.back();
	}

	/* Kinds of a later protocol, for which we never ask; hiredis may know them or not. */
	static bool is_of_a_later_protocol(const redisReadTask *task)
	{
		switch (task->type)
		{
		case REDIS_REPLY_STRING: /* a bulk string, also an absent one */
		case REDIS_REPLY_ARRAY:
		case REDIS_REPLY_INTEGER:
		case REDIS_REPLY_STATUS:
		case REDIS_REPLY_ERROR:
			return false;
		default:
			return true;
		}
	}

	template <typename Make> static void *make(const redisReadTask *task, Make &&make)
	{
		if (is_of_a_later_protocol(task))
			return refuse(task, kUnexpectedType);
		try
		{
			Reply reply;

			make(&reply);
			return place(task, std::move(reply));
		}
		catch (const std::bad_alloc &)
		{
			return refuse(task, "out of memory");
		}
	}

	static void *string(const redisReadTask *task, char *bytes, size_t length)
	{
		if (task->type != REDIS_REPLY_STRING && length > kLongestLine)
			return refuse(task, "a line that is too long");
		return make(task, [&](Reply *reply) {
			reply->kind = task->type == REDIS_REPLY_STATUS  ? Reply::Kind::kStatus
			              : task->type == REDIS_REPLY_ERROR ? Reply::Kind::kError
			                                                : Reply::Kind::kString;
			reply->text.assign(bytes, length);
		});
	}

#if HIREDIS_MAJOR >= 1
	using Count = size_t;
#else
	using Count = int;
#endif

	static void *array(const redisReadTask *task, Count count)
	{
		Building *state = building(task);
		int depth = 1;

		for (const redisReadTask *up = task->parent; up != nullptr; up = up->parent)
			++depth;
		if (depth > state->limits.depth)
			return refuse(task, "arrays nested too deeply");
		if (static_cast<size_t>(count) > state->limits.elements - state->elements)
			return refuse(task, "too many array elements");
		state->elements += static_cast<size_t>(count);
		return make(task, [&](Reply *reply) {
			reply->kind = Reply::Kind::kArray;
			reply->elements.reserve(std::min(static_cast<size_t>(count), kBelievedElements));
		});
	}

	static void *integer(const redisReadTask *task, long long number)
	{
		return make(task, [&](Reply *reply) {
			reply->kind = Reply::Kind::kInteger;
			reply->integer = number;
		});
	}

	static void *nil(const redisReadTask *task)
	{
		return make(task, [](Reply *) {});
	}

#if HIREDIS_MAJOR >= 1
	static void *floating(const redisReadTask *task, double, char *, size_t)
	{
		return refuse(task, kUnexpectedType);
	}

	static void *boolean(const redisReadTask *task, int)
	{
		return refuse(task, kUnexpectedType);
	}
#endif

	static void release(void *reply)
	{
		delete static_cast<Reply *>(reply);
	}

	static redisReplyObjectFunctions *table()
	{
		static redisReplyObjectFunctions functions = [] {
			redisReplyObjectFunctions f{};

			f.createString = string;
			f.createArray = array;
			f.createInteger = integer;
			f.createNil = nil;
			f.freeObject = release;
#if HIREDIS_MAJOR >= 1
			f.createDouble = floating;
			f.createBool = boolean;
#endif
			return f;
		}();

		return &functions;
	}
};

void
Connection::FreeReader::operator()(redisReader *reader) const
{
	redisReaderFree(reader);
}

Request &
Request::add(const std::string_view *arguments, size_t count)
{
	constexpr size_t kInline = 16;
	const char *few_pointers[kInline];
	size_t few_lengths[kInline];
	std::vector<const char *> many_pointers;
	std::vector<size_t> many_lengths;
	const char **pointers = few_pointers;
	size_t *lengths = few_lengths;

	if (count > kInline)
	{
		many_pointers.resize(count);
		many_lengths.resize(count);
		pointers = many_pointers.data();
		lengths = many_lengths.data();
	}
	for (size_t i = 0; i < count; ++i)
	{
		pointers[i] = arguments[i].data();
		lengths[i] = arguments[i].size();
	}

	sds formatted = nullptr;
	long long length =
	    redisFormatSdsCommandArgv(&formatted, static_cast<int>(count), pointers, lengths);

	if (length < 0 || formatted == nullptr)
		throw std::bad_alloc();
	std::unique_ptr<char, void (*)(char *)> owned(formatted, redisFreeSdsCommand);

	bytes_.append(formatted, static_cast<size_t>(length));
	++commands_;
	return *this;
}

Connection::Connection(const Limits &limits)
    : limits_(limits), building_(new Building()),
      reader_(redisReaderCreateWithFunctions(Functions::table()))
{
	if (reader_ == nullptr)
		throw std::bad_alloc();
	building_->limits = limits;
	reader_->privdata = building_.get();
}

void
Connection::begin(const Request &request)
{
	if (in_flight())
		fail("a command was begun before the replies to the last one were complete");
	outgoing_ = request.bytes();
	sent_ = 0;
	expected_ = request.commands();
	replies_.clear();
	replies_.reserve(expected_);
}

std::string_view
Connection::outgoing() const
{
	return std::string_view(outgoing_).substr(sent_);
}

void
Connection::sent(size_t count)
{
	sent_ += count;
	if (sent_ >= outgoing_.size())
	{
		/* Keep the buffer of ordinary requests, give back that of a big one. */
		constexpr size_t kKeep = 64 * 1024;

		outgoing_.clear();
		sent_ = 0;
		if (outgoing_.capacity() > kKeep)
			outgoing_.shrink_to_fit();
	}
}

void
Connection::fail(const char *what)
{
	failed_ = true;
	replies_.clear();
	throw Error(kProtocolViolation, "unexpected answer from Redis",
	            std::string("The answer was refused: ") + what + ".");
}

void
Connection::received(std::string_view bytes)
{
	if (failed_)
		fail("the connection had already failed");
	if (bytes.empty())
		return;
	if (expected_ == 0)
		fail("a reply that no command asked for");
	if (redisReaderFeed(reader_.get(), bytes.data(), bytes.size()) != REDIS_OK)
		fail("it does not fit into memory");
	unfinished_bytes_ += bytes.size();
	collect();
	if (unfinished_bytes_ > limits_.reply_bytes)
		fail("a reply larger than the limit");
	if (expected_ == 0 && unfinished_bytes_ > 0)
		fail("more replies than commands");
}

void
Connection::collect()
{
	while (expected_ > 0)
	{
		void *reply = nullptr;

		if (redisReaderGetReply(reader_.get(), &reply) != REDIS_OK)
			fail(building_->broken != nullptr ? building_->broken : "it is not the Redis protocol");
		if (reply == nullptr)
			return;

		std::unique_ptr<Reply> owned(static_cast<Reply *>(reply));

		building_->elements = 0;
		unfinished_bytes_ = reader_->len - reader_->pos;
		replies_.push_back(std::move(*owned));
		--expected_;
	}
}

std::vector<Reply>
Connection::take_replies()
{
	if (in_flight())
		fail("the replies are not complete");
	return std::move(replies_);
}

} /* namespace cache_ext::redis */
