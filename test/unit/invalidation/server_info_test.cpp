/*-------------------------------------------------------------------------
 *
 * server_info_test.cpp
 *		What INFO says about what could be forgotten.
 *
 *-------------------------------------------------------------------------
 */
#include <gtest/gtest.h>

#include "core/invalidation/server_info.hpp"

namespace cache_ext::invalidation {
namespace {

const char *const kSaved = "# Server\r\nrun_id:abc\r\nserver_time_usec:1000000000\r\n"
                           "# Persistence\r\nrdb_last_save_time:900\r\n"
                           "rdb_last_bgsave_time_sec:10\r\nrdb_last_bgsave_status:ok\r\n"
                           "# Replication\r\nmaster_replid:def\r\nmaster_repl_offset:50\r\n";

TEST(ServerInfo, SaysWhoTheServerIs)
{
	ServerInfo info = parse_server_info(kSaved);

	EXPECT_EQ(info.run_id, "abc");
	EXPECT_EQ(info.master_replid, "def");
	EXPECT_EQ(info.master_offset, 50u);
	EXPECT_EQ(info.replicas, 0);
}

TEST(ServerInfo, CountsFromTheBeginningOfASave)
{
	/* Complete at 900 after 10 seconds, and now it is 1000; whole seconds, hence two on top. */
	EXPECT_EQ(parse_server_info(kSaved).save_age_us, 112 * 1000000);
}

TEST(ServerInfo, ASaveThatNeverWasIsUnknown)
{
	EXPECT_EQ(parse_server_info("server_time_usec:1000000000\nrdb_last_save_time:900\n"
	                            "rdb_last_bgsave_time_sec:-1\nrdb_last_bgsave_status:ok\n")
	              .save_age_us,
	          -1);
	EXPECT_EQ(parse_server_info("").save_age_us, -1);
	EXPECT_FALSE(parse_server_info("").appends);
}

TEST(ServerInfo, AnAppendOnlyFileCountsWhenItIsInOrder)
{
	EXPECT_TRUE(parse_server_info("aof_enabled:1\r\naof_last_write_status:ok\r\n"
	                              "aof_last_bgrewrite_status:ok\r\n")
	                .appends);
	EXPECT_FALSE(parse_server_info("aof_enabled:1\r\naof_last_write_status:err\r\n"
	                               "aof_last_bgrewrite_status:ok\r\n")
	                 .appends);
}

TEST(ServerInfo, TheSlowestReplicaCounts)
{
	const std::string two = "connected_slaves:2\nmaster_repl_offset:100\n"
	                        "slave0:ip=a,port=1,state=online,offset=90,lag=0\n";

	EXPECT_EQ(parse_server_info(two + "slave1:ip=b,port=1,state=online,offset=80,lag=1\n")
	              .slowest_replica_offset,
	          80u);
	EXPECT_EQ(parse_server_info(two + "slave1:ip=b,port=1,state=wait_bgsave,offset=95,lag=1\n")
	              .slowest_replica_offset,
	          0u);
}

} /* namespace */
} /* namespace cache_ext::invalidation */
