/*-------------------------------------------------------------------------
 *
 * key_pattern_test.cpp
 *		A key is cut as its pattern says, or not at all.
 *
 *-------------------------------------------------------------------------
 */
#include <gtest/gtest.h>

#include "core/base/error.hpp"
#include "core/cache/key_pattern.hpp"

namespace cache_ext::cache {
namespace {

using Values = std::vector<std::string_view>;

Values
match(const char *pattern, std::string_view key)
{
	return KeyPattern::parse(pattern).match(key).value_or(Values{"no match"});
}

TEST(KeyPattern, BindsItsPlaceholdersInOrder)
{
	EXPECT_EQ(match("campaigns:{tenant_id}", "campaigns:7"), Values{"7"});
	EXPECT_EQ(match("{a}:{b}", "x:y"), (Values{"x", "y"}));
	EXPECT_EQ(match("a{x}b{y}", "a1b2b3"), (Values{"1", "2b3"}));
	EXPECT_EQ(match("plain", "plain"), Values{});
	EXPECT_EQ(KeyPattern::parse("{b}-{a}-{b}").names(), (std::vector<std::string>{"b", "a"}));
}

TEST(KeyPattern, APlaceholderIsNeverEmptyAndNeverCrossesAColon)
{
	for (const char *key :
	     {"campaigns:", "campaigns:1:2", "campaigns", "xcampaigns:1", "campaigns:1:"})
		EXPECT_FALSE(KeyPattern::parse("campaigns:{id}").match(key)) << key;
	EXPECT_EQ(match("{a}x{b}:z", "1x2x3:z"), (Values{"1", "2x3"}));
	EXPECT_FALSE(KeyPattern::parse("{a}:z").match("1:2:z"));
}

TEST(KeyPattern, TheSameNameIsTheSameText)
{
	EXPECT_EQ(match("{a}:{a}", "x:x"), Values{"x"});
	EXPECT_FALSE(KeyPattern::parse("{a}:{a}").match("x:y"));
	EXPECT_EQ(match("{a}-{a}", "1-1-1-1"), Values{"1-1"});
}

TEST(KeyPattern, BracesAreDoubled)
{
	EXPECT_EQ(match("{{{a}}}", "{7}"), Values{"7"});
	EXPECT_EQ(KeyPattern::parse("{{x}}").literal_bytes(), 3u);
}

TEST(KeyPattern, FillIsTheInverse)
{
	KeyPattern pattern = KeyPattern::parse("a:{x}:{y}:{x}");

	EXPECT_EQ(pattern.fill({"1", "2"}), "a:1:2:1");
	EXPECT_EQ(*pattern.match(pattern.fill({"1", "2"})), (Values{"1", "2"}));
	EXPECT_EQ(pattern.parse_template("tag:{y}").fill({"1", "2"}), "tag:2");
	EXPECT_THROW(pattern.parse_template("tag:{z}"), Error);
	EXPECT_EQ(KeyPattern::parse("a*:{x}:{y}").glob(), "a\\*:*:*");
}

TEST(KeyPattern, RefusesWhatCannotBeCut)
{
	for (const char *text : {"{", "}", "{a", "a}", "{}", "{a}{b}", "{a{b}}",
	                         "{a}-{b}-{c}-{d}-{e}-{f}-{g}-{h}-{i}-{j}-{k}-{l}-{m}-{n}-{o}-{p}-{q}"})
		EXPECT_THROW(KeyPattern::parse(text), Error) << text;
}

TEST(KeyPattern, HostileKeysEnd)
{
	std::string key(8000, 'x');

	EXPECT_FALSE(KeyPattern::parse("{a}x{b}x{c}x{d}x{e}x{f}y").match(key));
	EXPECT_TRUE(KeyPattern::parse("{a}x{b}").match(key));
}

} /* namespace */
} /* namespace cache_ext::cache */
