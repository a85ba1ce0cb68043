/*-------------------------------------------------------------------------
 *
 * adaptive_spin_test.cpp
 *		Waits begin awake where that helps, and hardly ever where it does not.
 *
 *-------------------------------------------------------------------------
 */
#include <gtest/gtest.h>

#include "core/redis/adaptive_spin.hpp"

namespace cache_ext::redis {

/* How many of so many waits begin awake, each of which succeeds or not. */
template <typename Succeeds>
static int
awake(AdaptiveSpin *spin, int waits, Succeeds &&succeeds)
{
	int count = 0;

	for (int i = 0; i < waits; ++i)
	{
		if (!spin->wanted())
			continue;
		if (succeeds(count++))
			spin->succeeded();
		else
			spin->failed();
	}
	return count;
}

TEST(AdaptiveSpin, StaysAwakeWhereItHelps)
{
	AdaptiveSpin spin;

	EXPECT_EQ(awake(&spin, 1000, [](int) { return true; }), 1000);
}

TEST(AdaptiveSpin, GivesUpWhereItNeverHelps)
{
	AdaptiveSpin spin;

	EXPECT_EQ(awake(&spin, 1, [](int) { return false; }), 1);
	EXPECT_FALSE(spin.wanted());
	(void) awake(&spin, 200, [](int) { return false; });
	EXPECT_LE(awake(&spin, 6400, [](int) { return false; }), 101);
	EXPECT_GE(awake(&spin, 6400, [](int) { return false; }), 99);
}

TEST(AdaptiveSpin, GivesUpWhereItHelpsHalfTheTime)
{
	AdaptiveSpin spin;
	auto every_other = [](int i) { return i % 2 == 0; };

	(void) awake(&spin, 1000, every_other);
	EXPECT_LE(awake(&spin, 6400, every_other), 110);
}

TEST(AdaptiveSpin, ComesBackWhenItHelpsAgain)
{
	AdaptiveSpin spin;

	(void) awake(&spin, 1000, [](int) { return false; });
	(void) awake(&spin, 64 * 64, [](int) { return true; });
	EXPECT_EQ(awake(&spin, 100, [](int) { return true; }), 100);
}

} /* namespace cache_ext::redis */
