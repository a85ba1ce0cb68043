/*-------------------------------------------------------------------------
 *
 * glob_test.cpp
 *		Glob patterns mean here what they mean in Redis.
 *
 *-------------------------------------------------------------------------
 */
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "core/invalidation/glob.hpp"

namespace cache_ext::invalidation {
namespace {

TEST(Glob, MatchesAsRedisDoes)
{
	EXPECT_TRUE(glob_match("*", ""));
	EXPECT_TRUE(glob_match("a*", "a"));
	EXPECT_TRUE(glob_match("*a*b", "xaxbxab"));
	EXPECT_FALSE(glob_match("*a*b", "xaxbxa"));
	EXPECT_TRUE(glob_match("h?llo", "hello"));
	EXPECT_FALSE(glob_match("h?llo", "hllo"));
	EXPECT_TRUE(glob_match("h[ae]llo", "hallo"));
	EXPECT_FALSE(glob_match("h[^e]llo", "hello"));
	EXPECT_TRUE(glob_match("h[^e]llo", "hbllo"));
	EXPECT_TRUE(glob_match("h[a-c]llo", "hbllo"));
	EXPECT_TRUE(glob_match("h[c-a]llo", "hbllo"));
	EXPECT_FALSE(glob_match("h[a-c]llo", "hdllo"));
	EXPECT_TRUE(glob_match("a\\*b", "a*b"));
	EXPECT_FALSE(glob_match("a\\*b", "axb"));
	EXPECT_TRUE(glob_match("[\\]]", "]"));
	EXPECT_FALSE(glob_match("", "a"));
	EXPECT_TRUE(glob_match("a]", "a]"));
}

TEST(Glob, EscapedTextMatchesItselfAndNothingElse)
{
	std::mt19937 random(7);
	const std::string alphabet = "ab*?[]\\^-";
	auto text = [&] {
		std::string out;

		for (size_t n = random() % 6; n > 0; --n)
			out.push_back(alphabet[random() % alphabet.size()]);
		return out;
	};

	for (int i = 0; i < 20000; ++i)
	{
		std::string a = text();
		std::string b = text();

		EXPECT_EQ(glob_match(glob_escape(a), b), a == b) << a << " / " << b;
		EXPECT_TRUE(glob_is_literal(glob_escape(a)));
		EXPECT_EQ(glob_literal_prefix(glob_escape(a)), a);
		EXPECT_EQ(glob_literal_prefix(glob_escape(a) + "*" + b), a);
	}
}

/* The straightforward recursion, exponential at worst. */
bool
slow_match(std::string_view pattern, std::string_view text)
{
	if (pattern.empty())
		return text.empty();
	if (pattern[0] == '*')
		return slow_match(pattern.substr(1), text) ||
		       (!text.empty() && slow_match(pattern, text.substr(1)));
	return !text.empty() && (pattern[0] == '?' || pattern[0] == text[0]) &&
	       slow_match(pattern.substr(1), text.substr(1));
}

TEST(Glob, AgreesWithTheDefinition)
{
	std::mt19937 random(11);

	for (int i = 0; i < 50000; ++i)
	{
		std::string pattern;
		std::string text;

		for (size_t n = random() % 7; n > 0; --n)
			pattern.push_back("ab*?"[random() % 4]);
		for (size_t n = random() % 8; n > 0; --n)
			text.push_back("ab"[random() % 2]);
		EXPECT_EQ(glob_match(pattern, text), slow_match(pattern, text)) << pattern << " / " << text;
	}
}

TEST(Glob, StaysFastOnPatternsThatHangOthers)
{
	std::string pattern;

	for (int i = 0; i < 50; ++i)
		pattern += "a*";
	EXPECT_FALSE(glob_match(pattern + "b", std::string(5000, 'a')));
	EXPECT_EQ(glob_stars(pattern), 50);
	EXPECT_EQ(glob_stars("\\*a*"), 1);
}

} /* namespace */
} /* namespace cache_ext::invalidation */
