/*-------------------------------------------------------------------------
 *
 * address_test.cpp
 *		Addresses are read as people write them, and complaints keep secrets.
 *
 *-------------------------------------------------------------------------
 */
#include <gtest/gtest.h>

#include "core/base/error.hpp"
#include "core/redis/address.hpp"

namespace cache_ext::redis {
namespace {

/* What is said about a wrong address, all parts of it. */
struct Refusal
{
	std::string code;
	std::string text;
};

Refusal
refusal_of(const std::string &url)
{
	try
	{
		parse_address(url);
	}
	catch (const Error &error)
	{
		return {error.state().code, error.message() + error.detail() + error.hint()};
	}
	return {"accepted", ""};
}

TEST(Address, TakesAHostAlone)
{
	Address address = parse_address("redis://cache.example");

	EXPECT_EQ(address.host, "cache.example");
	EXPECT_EQ(address.port, 6379);
	EXPECT_EQ(address.database, 0);
	EXPECT_FALSE(address.is_unix());
	EXPECT_EQ(address.name(), "cache.example:6379");
}

TEST(Address, TakesEveryPart)
{
	Address address = parse_address("redis://shop:p%40ss%3A%2F@10.0.0.7:6380/3");

	EXPECT_EQ(address.user, "shop");
	EXPECT_EQ(address.password, "p@ss:/");
	EXPECT_EQ(address.host, "10.0.0.7");
	EXPECT_EQ(address.port, 6380);
	EXPECT_EQ(address.database, 3);
	EXPECT_EQ(address.name(), "10.0.0.7:6380/3");
}

TEST(Address, TakesAPasswordWithoutUser)
{
	Address address = parse_address("redis://:secret@localhost/");

	EXPECT_EQ(address.user, "");
	EXPECT_EQ(address.password, "secret");
	EXPECT_EQ(address.database, 0);
}

TEST(Address, TakesAnUnescapedAtSignInThePassword)
{
	Address address = parse_address("redis://:a@b@localhost:1");

	EXPECT_EQ(address.password, "a@b");
	EXPECT_EQ(address.host, "localhost");
}

TEST(Address, TakesIPv6InBrackets)
{
	Address address = parse_address("redis://[::1]:7000");

	EXPECT_EQ(address.host, "::1");
	EXPECT_EQ(address.port, 7000);
	EXPECT_EQ(address.name(), "[::1]:7000");
	EXPECT_EQ(parse_address("redis://[fe80::1]").port, 6379);
}

TEST(Address, TakesASocket)
{
	Address address = parse_address("unix:///run/redis/redis.sock");

	EXPECT_TRUE(address.is_unix());
	EXPECT_EQ(address.path, "/run/redis/redis.sock");
	EXPECT_EQ(address.name(), "/run/redis/redis.sock");

	address = parse_address("unix://u:p@/tmp/a%20b?db=2");
	EXPECT_EQ(address.user, "u");
	EXPECT_EQ(address.password, "p");
	EXPECT_EQ(address.path, "/tmp/a b");
	EXPECT_EQ(address.database, 2);
}

TEST(Address, TakesAnEncryptedOne)
{
	Address address = parse_address("rediss://shop:hunter2@cache.example/1");

	EXPECT_TRUE(address.encrypted);
	EXPECT_EQ(address.host, "cache.example");
	EXPECT_EQ(address.port, 6379);
	EXPECT_EQ(address.url(), "rediss://cache.example:6379/1");
	EXPECT_FALSE(parse_address("redis://cache.example").encrypted);
}

TEST(Address, NamesTheWrongPartAndNeverTheSecret)
{
	const struct
	{
		const char *url;
		const char *part;
	} kCases[] = {
	    {"", "begin"},
	    {"localhost:6379", "begin"},
	    {"http://:hunter2@host", "begin"},
	    {"REDIS://:hunter2@host", "begin"},
	    {"redis://", "host"},
	    {"redis://:hunter2@", "host"},
	    {"redis://:hunter2@:6379", "host"},
	    {"redis://:hunter2@ho st", "host"},
	    {"redis://:hunter2@-host", "host"},
	    {"rediss://:hunter2@:6379", "host"},
	    {"redis://:hunter2@[::1", "]"},
	    {"redis://:hunter2@[::1]x", "port"},
	    {"redis://:hunter2@host:0", "port"},
	    {"redis://:hunter2@host:65536", "port"},
	    {"redis://:hunter2@host:-1", "port"},
	    {"redis://:hunter2@host:", "port"},
	    {"redis://:hunter2@host:63790000000000000000", "port"},
	    {"redis://host:hunter2", "port"},
	    {"redis://user:hunter2/x@host", "port"},
	    {"redis://:hunter2@host/one", "database"},
	    {"redis://:hunter2@host/-1", "database"},
	    {"redis://:hunter2@host/1/2", "database"},
	    {"redis://:hunter2@host/1?timeout=3", "options"},
	    {"redis://:hunter2@host?db=1", "options"},
	    {"redis://:hunter2%@host", "password"},
	    {"redis://:hunter2%0@host", "password"},
	    {"redis://:hunter2%zz@host", "password"},
	    {"redis://:hunter2%00@host", "password"},
	    {"redis://hunter2%zz:x@host", "user"},
	    {"unix://", "path"},
	    {"unix:///", "path"},
	    {"unix://hunter2/redis.sock", "path"},
	    {"unix://:hunter2@/tmp/s?timeout=1", "options"},
	    {"unix://:hunter2@/tmp/s?db=x", "database"},
	    {"unix://:hunter2@/tmp/%00", "path"},
	};

	for (const auto &each : kCases)
	{
		Refusal refusal = refusal_of(each.url);

		EXPECT_EQ(refusal.code, "22023") << each.url;
		EXPECT_NE(refusal.text.find(each.part), std::string::npos)
		    << each.url << " said: " << refusal.text;
		EXPECT_EQ(refusal.text.find("hunter2"), std::string::npos) << each.url;
	}
}

TEST(Address, RefusesAPathThatNoSocketCanHave)
{
	EXPECT_EQ(refusal_of("unix:///" + std::string(200, 'x')).code, "22023");
}

} /* namespace */
} /* namespace cache_ext::redis */
