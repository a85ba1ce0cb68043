#include "core/invalidation/retention.hpp"

#include <gtest/gtest.h>

namespace cache_ext::invalidation {
namespace {

constexpr int64_t kSecond = 1000 * 1000;
constexpr int64_t kHour = 3600 * kSecond;

/* A server looked at once a second, and the age that items need, in seconds. */
class RetentionTest : public testing::Test
{
  protected:
	void pass(int seconds)
	{
		for (int i = 0; i < seconds; ++i)
		{
			now_.day += kSecond;
			now_.steady += kSecond;
			if (info_.save_age_us >= 0)
				info_.save_age_us += kSecond;
			info_.master_offset += 10;
			if (!lagging_)
				info_.slowest_replica_offset = info_.master_offset;
			retention_.looked(info_, now_);
		}
	}
	int64_t needed() { return (now_.day - retention_.safe_before(now_)) / kSecond; }

	Retention retention_;
	ServerInfo info_;
	Moment now_ = {1000 * kHour, 5 * kHour};
	bool lagging_ = false;
};

TEST_F(RetentionTest, WhatIsNotSavedIsKeptForAnHour)
{
	EXPECT_FALSE(retention_.knows_server());
	pass(10);
	EXPECT_TRUE(retention_.knows_server());
	EXPECT_EQ(needed(), 3600);
}

TEST_F(RetentionTest, WhatIsOlderThanACompleteSaveMayGoAfterAMinute)
{
	info_.save_age_us = 0;
	pass(5);
	EXPECT_EQ(needed(), 60);
	pass(300);
	EXPECT_EQ(needed(), 315);
	info_.save_age_us = 0;
	pass(1);
	EXPECT_EQ(needed(), 60);
	info_.save_age_us = 2 * kHour;
	pass(1);
	EXPECT_EQ(needed(), 3600);
}

TEST_F(RetentionTest, WhatIsAppendedToAFileMayGoAfterAMinute)
{
	info_.appends = true;
	pass(1);
	EXPECT_EQ(needed(), 60);
}

TEST_F(RetentionTest, EveryReplicaMustHaveIt)
{
	info_.appends = true;
	info_.replicas = 2;
	pass(5);
	EXPECT_EQ(needed(), 60);
	lagging_ = true;
	pass(500);
	EXPECT_GE(needed(), 500);
	lagging_ = false;
	pass(3);
	EXPECT_EQ(needed(), 60);
}

TEST_F(RetentionTest, AReplicaThatIsCutOffMayStillBePromoted)
{
	info_.appends = true;
	info_.replicas = 1;
	pass(5);
	info_.replicas = 0;
	pass(600);
	EXPECT_GE(needed(), 600) << "what it has missed would be back";
	info_.replicas = 1;
	pass(3);
	EXPECT_EQ(needed(), 60) << "it has caught up";
	info_.replicas = 0;
	pass(3600 + 10);
	EXPECT_EQ(needed(), 60) << "nobody waits for it for ever";
}

TEST_F(RetentionTest, AReplicaThatNeverWasOnlineHasNothing)
{
	info_.appends = true;
	info_.replicas = 1;
	lagging_ = true;
	pass(100);
	EXPECT_EQ(needed(), 3600);
}

TEST_F(RetentionTest, AClockThatJumpsAheadMakesNothingOld)
{
	info_.appends = true;
	pass(100);
	now_.day += 24 * kHour;
	EXPECT_EQ(needed(), 24 * 3600 + 60);
	pass(100);
	EXPECT_EQ(needed(), 24 * 3600 + 60);
	pass(3600);
	EXPECT_EQ(needed(), 60) << "all that is from before the jump is an hour old";
}

TEST_F(RetentionTest, AClockThatJumpsBackKeepsThingsLonger)
{
	info_.appends = true;
	pass(100);
	now_.day -= 24 * kHour;
	EXPECT_EQ(needed(), 60);
}

TEST_F(RetentionTest, OfAnotherServerNothingIsKnown)
{
	info_.appends = true;
	info_.replicas = 1;
	pass(100);
	retention_.forget_server();
	EXPECT_FALSE(retention_.knows_server());
	lagging_ = true;
	pass(10);
	EXPECT_EQ(needed(), 3600);
}

} /* namespace */
} /* namespace cache_ext::invalidation */
