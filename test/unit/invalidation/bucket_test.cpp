/*-------------------------------------------------------------------------
 *
 * bucket_test.cpp
 *		Bucket numbers lie in Redis and in other programs: they never change.
 *
 *-------------------------------------------------------------------------
 */
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "core/invalidation/bucket.hpp"

namespace cache_ext::invalidation {
namespace {

TEST(Bucket, NumbersAreThePublishedOnes)
{
	EXPECT_EQ(kBucketOfAll, 13637u);
	EXPECT_EQ(bucket_of(NameKind::kKey, "a"), 7194u);
	EXPECT_EQ(bucket_of(NameKind::kTag, "t"), 5092u);
	EXPECT_EQ(bucket_of(NameKind::kPrefix, "p"), 9140u);
	EXPECT_NE(bucket_of(NameKind::kKey, "a"), bucket_of(NameKind::kTag, "a"));
}

TEST(Bucket, NamesAreSpreadEvenly)
{
	std::vector<int> count(kBucketCount);
	int most = 0;

	for (int i = 0; i < 20 * static_cast<int>(kBucketCount); ++i)
		most = std::max(most, ++count[bucket_of(NameKind::kKey, "bag:" + std::to_string(i))]);
	EXPECT_LT(most, 60); /* 20 on average */
}

TEST(Bucket, PrefixEndsBeforeTheFirstColon)
{
	EXPECT_EQ(prefix_of("a:b:c"), "a");
	EXPECT_TRUE(has_prefix(":b"));
	EXPECT_EQ(prefix_of(":b"), "");
	EXPECT_FALSE(has_prefix("abc"));
}

TEST(Bucket, NamesInRedisBeginWithTheKeyPrefix)
{
	EXPECT_EQ(version_key("shop:", 7), "shop:v:7");
	EXPECT_EQ(floor_key(""), "floor");
	EXPECT_EQ(event_channel("shop:"), "shop:invalidate");
}

} /* namespace */
} /* namespace cache_ext::invalidation */
