/*-------------------------------------------------------------------------
 *
 * refusal_test.cpp
 *		Errors are told apart by their first word alone.
 *
 *-------------------------------------------------------------------------
 */
#include <gtest/gtest.h>

#include "core/redis/refusal.hpp"

namespace cache_ext::redis {
namespace {

TEST(Refusal, IsKnownByItsFirstWord)
{
	EXPECT_EQ(classify_refusal("NOAUTH Authentication required."), Refusal::kLogin);
	EXPECT_EQ(classify_refusal("WRONGPASS invalid username-password pair"), Refusal::kLogin);
	EXPECT_EQ(classify_refusal("NOPERM no permissions to run 'get'"), Refusal::kPermission);
	EXPECT_EQ(classify_refusal("OOM command not allowed"), Refusal::kFull);
	EXPECT_EQ(classify_refusal("MISCONF Errors writing to disk"), Refusal::kFull);
	EXPECT_EQ(classify_refusal("LOADING Redis is loading"), Refusal::kNotServing);
	EXPECT_EQ(classify_refusal("BUSY Redis is busy"), Refusal::kNotServing);
	EXPECT_EQ(classify_refusal("READONLY You can't write"), Refusal::kNotServing);
	EXPECT_EQ(classify_refusal("MOVED 1234 10.0.0.1:6379"), Refusal::kNotServing);
	EXPECT_EQ(classify_refusal("BUSY"), Refusal::kNotServing);
	EXPECT_EQ(classify_refusal("ERR value is not an integer or out of range"), Refusal::kData);
	EXPECT_EQ(classify_refusal("WRONGTYPE Operation against a key"), Refusal::kData);
}

TEST(Refusal, SaysNothingOfTheServerOtherwise)
{
	for (const char *text : {"", "ERR unknown command", "EXECABORT", "oom x",
	                         "BUSYKEY Target key name already exists", " LOADING", "%s%n"})
		EXPECT_EQ(classify_refusal(text), Refusal::kOther) << text;
}

} /* namespace */
} /* namespace cache_ext::redis */
