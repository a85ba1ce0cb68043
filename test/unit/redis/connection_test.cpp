/*-------------------------------------------------------------------------
 *
 * connection_test.cpp
 *		Replies are the same however the bytes are cut, and a server that lies
 *		costs an error, not memory.
 *
 *-------------------------------------------------------------------------
 */
#include <gtest/gtest.h>

#include "core/base/error.hpp"
#include "core/redis/connection.hpp"

namespace cache_ext::redis {
namespace {

using namespace std::string_literals;

/* A reply as one line, to compare and to print. */
std::string
describe(const Reply &reply)
{
	switch (reply.kind)
	{
	case Reply::Kind::kNil:
		return "nil";
	case Reply::Kind::kString:
		return "'" + reply.text + "'";
	case Reply::Kind::kStatus:
		return "+" + reply.text;
	case Reply::Kind::kError:
		return "-" + reply.text;
	case Reply::Kind::kInteger:
		return ":" + std::to_string(reply.integer);
	case Reply::Kind::kArray:
		break;
	}
	std::string out = "[";

	for (const Reply &element : reply.elements)
		out += describe(element) + " ";
	return out + "]";
}

std::string
describe(const std::vector<Reply> &replies)
{
	std::string out;

	for (const Reply &reply : replies)
		out += describe(reply) + "\n";
	return out;
}

Request
pings(size_t count)
{
	Request request;

	for (size_t i = 0; i < count; ++i)
		request.add({"PING"});
	return request;
}

const std::string kStream = "+OK\r\n"
                            "$-1\r\n"
                            "$5\r\na\0\r\nb\r\n"
                            "-ERR no\r\n"
                            ":-9223372036854775808\r\n"
                            "*-1\r\n"
                            "*0\r\n"
                            "$0\r\n\r\n"
                            "*3\r\n$1\r\nx\r\n*2\r\n:1\r\n$-1\r\n*1\r\n+deep\r\n"s;
constexpr size_t kReplies = 9;
const std::string kDescribed = "+OK\nnil\n'a\0\r\nb'\n-ERR no\n:-9223372036854775808\nnil\n[]\n''\n"
                               "['x' [:1 nil ] [+deep ] ]\n"s;

/* Begin an exchange of that many commands and feed the whole answer. */
std::string
error_of(const std::string &answer, size_t commands, const Limits &limits = Limits())
{
	Connection connection(limits);

	connection.begin(pings(commands));
	try
	{
		connection.received(answer);
	}
	catch (const Error &error)
	{
		EXPECT_TRUE(connection.failed());
		EXPECT_TRUE(connection.in_flight());
		EXPECT_STREQ(error.state().code, "08P01");
		return error.message();
	}
	return connection.in_flight() ? "waits" : "accepted";
}

TEST(Connection, GivesTheSameRepliesHoweverTheBytesAreCut)
{
	for (size_t first = 0; first <= kStream.size(); ++first)
		for (size_t second = first; second <= kStream.size(); ++second)
		{
			Connection connection;

			connection.begin(pings(kReplies));
			connection.received(std::string_view(kStream).substr(0, first));
			connection.received(std::string_view(kStream).substr(first, second - first));
			connection.received(std::string_view(kStream).substr(second));
			ASSERT_FALSE(connection.in_flight()) << "cut at " << first << " and " << second;
			ASSERT_EQ(describe(connection.take_replies()), kDescribed);
		}
}

TEST(Connection, GivesTheSameRepliesByteByByte)
{
	Connection connection;

	connection.begin(pings(kReplies));
	for (size_t i = 0; i < kStream.size(); ++i)
	{
		EXPECT_TRUE(connection.in_flight());
		connection.received(std::string_view(kStream).substr(i, 1));
	}
	EXPECT_FALSE(connection.in_flight());
	EXPECT_EQ(describe(connection.take_replies()), kDescribed);
}

TEST(Connection, SendsArgumentsAsDataWhateverTheyContain)
{
	Connection connection;
	Request request;

	request.add({"SET", "a\r\nDEL b\r\n\0%s"s, ""});
	request.add({"PING"});
	connection.begin(request);
	EXPECT_EQ(connection.outgoing(), "*3\r\n$3\r\nSET\r\n$13\r\na\r\nDEL b\r\n\0%s\r\n$0\r\n\r\n"
	                                 "*1\r\n$4\r\nPING\r\n"s);
}

TEST(Connection, TakesManyArguments)
{
	std::vector<std::string> names;
	std::vector<std::string_view> arguments{"MGET"};
	Request request;

	for (int i = 0; i < 1000; ++i)
		names.push_back("key" + std::to_string(i));
	arguments.insert(arguments.end(), names.begin(), names.end());
	request.add(arguments);
	EXPECT_EQ(request.bytes().substr(0, 7), "*1001\r\n");
	EXPECT_NE(request.bytes().find("\r\nkey999\r\n"), std::string::npos);
	EXPECT_EQ(request.commands(), 1u);
}

TEST(Connection, ForgetsWhatHasBeenSent)
{
	Connection connection;
	std::string all;

	connection.begin(pings(2));
	while (!connection.outgoing().empty())
	{
		all += connection.outgoing().substr(0, 1);
		connection.sent(1);
	}
	EXPECT_EQ(all, pings(2).bytes());
}

TEST(Connection, ServesOneExchangeAfterAnother)
{
	Connection connection;

	for (int i = 0; i < 100; ++i)
	{
		connection.begin(pings(1));
		connection.sent(connection.outgoing().size());
		connection.received(":" + std::to_string(i) + "\r\n");
		ASSERT_EQ(connection.take_replies().front().integer, i);
	}
}

TEST(Connection, AnErrorReplyIsAReply)
{
	Connection connection;

	connection.begin(pings(1));
	connection.received("-LOADING wait\r\n");
	EXPECT_FALSE(connection.failed());
	EXPECT_TRUE(connection.take_replies().front().is_error());
}

TEST(Connection, IsInFlightUntilTheLastReplyIsComplete)
{
	Connection connection;

	EXPECT_FALSE(connection.in_flight());
	connection.begin(pings(2));
	EXPECT_TRUE(connection.in_flight());
	connection.received("+a\r\n+b");
	EXPECT_TRUE(connection.in_flight());
	connection.received("\r\n");
	EXPECT_FALSE(connection.in_flight());
}

TEST(Connection, CannotBeginAnExchangeWithinAnother)
{
	Connection connection;

	connection.begin(pings(1));
	EXPECT_THROW(connection.begin(pings(1)), Error);
	EXPECT_TRUE(connection.failed());
}

TEST(Connection, RefusesRepliesThatNobodyAskedFor)
{
	Connection connection;

	EXPECT_THROW(connection.received("+OK\r\n"), Error);
	EXPECT_NE(error_of("+OK\r\n+OK\r\n", 1), "accepted");
	EXPECT_NE(error_of("+OK\r\n+", 1), "accepted");
}

TEST(Connection, StaysFailed)
{
	Connection connection;

	connection.begin(pings(1));
	EXPECT_THROW(connection.received("HTTP/1.1 400 Bad Request\r\n"), Error);
	EXPECT_THROW(connection.received("+OK\r\n"), Error);
	EXPECT_THROW(connection.begin(pings(1)), Error);
	EXPECT_THROW(connection.take_replies(), Error);
}

TEST(Connection, RefusesWhatIsNotTheProtocol)
{
	for (const char *answer : {"HTTP/1.1 400\r\n", "$x\r\n", "$-2\r\n", "*-2\r\n", ":x\r\n",
	                           "$99999999999999999999999\r\n", "*99999999999999999999999\r\n",
	                           ":99999999999999999999999\r\n", "*9223372036854775807\r\n", "\r\n",
	                           "?\r\n", "\x16\x03\x01\x02"})
	{
		std::string outcome = error_of(answer, 1);

		EXPECT_NE(outcome, "accepted") << answer;
		EXPECT_NE(outcome, "waits") << answer;
	}
}

TEST(Connection, RefusesKindsOfALaterProtocolWhetherTheParserKnowsThemOrNot)
{
	for (const char *answer :
	     {"_\r\n", ",1.5\r\n", "#t\r\n", "(12345\r\n", "%1\r\n+a\r\n+b\r\n", "~1\r\n+a\r\n",
	      ">2\r\n+message\r\n+x\r\n", "=7\r\ntxt:abc\r\n", "*1\r\n_\r\n"})
	{
		std::string outcome = error_of(answer, 1);

		EXPECT_NE(outcome, "accepted") << answer;
		EXPECT_NE(outcome, "waits") << answer;
	}
	EXPECT_EQ(error_of("*2\r\n$-1\r\n*-1\r\n", 1), "accepted");
}

TEST(Connection, RefusesAReplyLargerThanTheLimit)
{
	Limits limits;

	limits.reply_bytes = 1000;
	EXPECT_EQ(error_of("$500\r\n" + std::string(500, 'x') + "\r\n", 1, limits), "accepted");
	EXPECT_NE(error_of("$2000\r\n" + std::string(1500, 'x'), 1, limits), "waits");
	EXPECT_NE(error_of("+" + std::string(1500, 'x'), 1, limits), "waits");
}

TEST(Connection, CountsTheLimitForEachReplyAlone)
{
	Limits limits;
	std::string reply = "$500\r\n" + std::string(500, 'x') + "\r\n";
	Connection connection(limits);

	limits.reply_bytes = 1000;
	EXPECT_EQ(error_of(reply + reply + reply, 3, limits), "accepted");
}

TEST(Connection, AnAnnouncedLengthCostsNothing)
{
	EXPECT_EQ(error_of("$536870912\r\n", 1), "waits");
}

TEST(Connection, RefusesTooManyElementsBeforeTheyCome)
{
	Limits limits;

	limits.elements = 10;
	EXPECT_EQ(error_of("*10\r\n", 1, limits), "waits");
	EXPECT_NE(error_of("*11\r\n", 1, limits), "waits");
	EXPECT_NE(error_of("*2147483647\r\n", 1), "waits");

	/* All arrays of a reply together. */
	EXPECT_NE(error_of("*5\r\n*6\r\n", 1, limits), "waits");
	/* Each reply alone. */
	EXPECT_EQ(error_of("*1\r\n*1\r\n:1\r\n*9\r\n", 2, limits), "waits");
}

TEST(Connection, RefusesDeepNesting)
{
	std::string deep;

	for (int i = 0; i < 4; ++i)
		deep += "*1\r\n";
	EXPECT_EQ(error_of(deep + ":1\r\n", 1), "accepted");
	EXPECT_NE(error_of(deep + "*1\r\n:1\r\n", 1), "accepted");
}

TEST(Connection, KeepsElementsInPlaceWhileArraysGrow)
{
	std::string answer = "*1000\r\n";
	Connection connection;

	for (int i = 0; i < 1000; ++i)
		answer += "*2\r\n:" + std::to_string(i) + "\r\n$1\r\nx\r\n";
	connection.begin(pings(1));
	connection.received(answer);

	std::vector<Reply> replies = connection.take_replies();

	ASSERT_EQ(replies.front().elements.size(), 1000u);
	for (int i = 0; i < 1000; ++i)
	{
		ASSERT_EQ(replies.front().elements[i].elements.size(), 2u);
		ASSERT_EQ(replies.front().elements[i].elements[0].integer, i);
		ASSERT_EQ(replies.front().elements[i].elements[1].text, "x");
	}
}

TEST(Readable, CutsAndEscapes)
{
	EXPECT_EQ(readable("ERR\x1b[31m %s\n"), "ERR?[31m %s?");
	EXPECT_EQ(readable(std::string(5000, 'a')).size(), 203u);
}

} /* namespace */
} /* namespace cache_ext::redis */
