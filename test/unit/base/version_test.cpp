/*-------------------------------------------------------------------------
 *
 * version_test.cpp
 *		A library knows which objects it works with.
 *
 *-------------------------------------------------------------------------
 */
#include <gtest/gtest.h>

#include "core/base/version.hpp"

namespace cache_ext {
namespace {

TEST(Version, ComparesNumbersAsNumbers)
{
	EXPECT_EQ(compare_versions("1.0", "1.0"), 0);
	EXPECT_EQ(compare_versions("1", "1.0"), 0);
	EXPECT_EQ(compare_versions("1.00", "1.0"), 0);
	EXPECT_EQ(compare_versions("1.07", "1.7"), 0);
	EXPECT_LT(compare_versions("1.9", "1.10"), 0);
	EXPECT_GT(compare_versions("2.0", "1.10"), 0);
	EXPECT_LT(compare_versions("1.0", "1.0.1"), 0);
	EXPECT_GT(compare_versions("1.0.1", "1.0"), 0);
	EXPECT_NE(compare_versions("1.0beta", "1.0"), 0);
}

TEST(Version, FitsFromTheOldestObjectsToTheLibrarysOwn)
{
	EXPECT_EQ(fit_of_objects("1.0", "1.0", "1.2"), Fit::kFits);
	EXPECT_EQ(fit_of_objects("1.2", "1.0", "1.2"), Fit::kFits);
	EXPECT_EQ(fit_of_objects("1.10", "1.0", "1.9"), Fit::kLibraryTooOld);
	EXPECT_EQ(fit_of_objects("1.0", "1.1", "1.2"), Fit::kObjectsTooOld);
}

TEST(Version, WorksWithItsOwnObjects)
{
	EXPECT_EQ(fit_of_objects(library_version(), oldest_objects(), library_version()), Fit::kFits);
}

} /* namespace */
} /* namespace cache_ext */
