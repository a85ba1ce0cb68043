/*-------------------------------------------------------------------------
 *
 * server_report_test.cpp
 *		INFO is read whoever sends it, and nothing is invented.
 *
 *-------------------------------------------------------------------------
 */
#include <gtest/gtest.h>

#include "core/redis/server_report.hpp"

namespace cache_ext::redis {
namespace {

constexpr char kRedis[] = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\n\r\n# Clients\r\n"
                          "connected_clients:3\r\n# Memory\r\nused_memory:1000000\r\n"
                          "used_memory_human:1M\r\n# Stats\r\nkeyspace_hits:10\r\n"
                          "keyspace_misses:5\r\n# Replication\r\nrole:slave\r\n# Keyspace\r\n"
                          "db0:keys=7,expires=1,avg_ttl=0\r\ndb3:keys=2,expires=0\r\n";

TEST(ServerReport, ReadsARedis)
{
	ServerReport report = read_server_report(kRedis, 0);

	EXPECT_EQ(report.version, "redis 7.0.15");
	EXPECT_EQ(report.role, "replica");
	EXPECT_EQ(report.clients, 3);
	EXPECT_EQ(report.memory_bytes, 1000000);
	EXPECT_EQ(report.keyspace_hits, 10);
	EXPECT_EQ(report.keyspace_misses, 5);
	EXPECT_EQ(report.keys, 7);
	EXPECT_EQ(read_server_report(kRedis, 3).keys, 2);
	EXPECT_EQ(read_server_report(kRedis, 1).keys, 0);
}

TEST(ServerReport, SaysWhatMayBeLost)
{
	auto read = [](const char *text) { return read_server_report(text, 0); };

	EXPECT_EQ(read("maxmemory:100\r\nmaxmemory_policy:allkeys-lru\r\n").eviction, "allkeys-lru");
	EXPECT_EQ(read("maxmemory:100\r\nmaxmemory_policy:noeviction\r\n").eviction, "");
	EXPECT_EQ(read("maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n").eviction, "");
	EXPECT_EQ(read("aof_enabled:1\r\n").appends, true);
	EXPECT_EQ(read("aof_enabled:0\r\n").appends, false);
	EXPECT_FALSE(read("role:master\r\n").appends.has_value());
}

TEST(ServerReport, ReadsAValkeyByItsOwnName)
{
	ServerReport report = read_server_report("redis_version:7.2.4\r\nserver_name:valkey\r\n"
	                                         "valkey_version:8.1.1\r\nrole:master\r\n",
	                                         0);

	EXPECT_EQ(report.version, "valkey 8.1.1");
	EXPECT_EQ(report.role, "master");
}

TEST(ServerReport, LeavesOutWhatIsNotSaid)
{
	for (const char *text : {"", "\n\n", "role", "connected_clients:many\r\nused_memory:\r\n",
	                         "db0:keys=x,expires=1", "x_redis_version:1"})
	{
		ServerReport report = read_server_report(text, 0);

		EXPECT_EQ(report.version, "") << text;
		EXPECT_FALSE(report.clients || report.memory_bytes || report.keys) << text;
	}
}

TEST(ServerReport, MakesTextReadable)
{
	EXPECT_EQ(read_server_report("redis_version:\x1b[31m7\n", 0).version, "redis ?[31m7");
}

} /* namespace */
} /* namespace cache_ext::redis */
