#include "core/invalidation/widening.hpp"

#include <gtest/gtest.h>

namespace cache_ext::invalidation {
namespace {

std::string
item(ItemKind kind, std::string_view body)
{
	char number[kMaxNumberBytes];
	std::string bytes(1, static_cast<char>(kind));

	bytes.append(number, static_cast<size_t>(put_number(number, body.size()) - number));
	return bytes.append(body);
}

TEST(Widening, StandsForWhatItNamesAndForNothingElse)
{
	std::string patterns = item(ItemKind::kPattern, "a:*:x") + item(ItemKind::kTagPattern, "v:*") +
	                       item(ItemKind::kTagSetPattern, "app:\x1fv:*") +
	                       item(ItemKind::kKey, "literal");
	Widening widening(patterns);

	EXPECT_EQ(widening.covering(ItemKind::kKey, "a:7:x"), item(ItemKind::kPattern, "a:*:x"));
	EXPECT_EQ(widening.covering(ItemKind::kKey, "a:7:y"), "");
	EXPECT_EQ(widening.covering(ItemKind::kKey, "literal"), "");
	EXPECT_EQ(widening.covering(ItemKind::kKey, "v:7"), "") << "a tag's pattern names no key";
	EXPECT_EQ(widening.covering(ItemKind::kTag, "v:7"), item(ItemKind::kTagPattern, "v:*"));
	EXPECT_EQ(widening.covering(ItemKind::kTagSet, "app:\x1fv:7"),
	          item(ItemKind::kTagSetPattern, "app:\x1fv:*"));
	EXPECT_EQ(widening.covering(ItemKind::kTagSet, "other:\x1fv:7"), "");
	EXPECT_EQ(widening.covering(ItemKind::kPublish, "v:7"), "");
	EXPECT_EQ(widening.covering(ItemKind::kClear, ""), "");
}

TEST(Widening, APatternIsCoveredOnlyWhereThatIsCertain)
{
	std::string patterns = item(ItemKind::kPattern, "p:*:*") + item(ItemKind::kPattern, "q\\*:*");
	Widening widening(patterns);

	EXPECT_NE(widening.covering(ItemKind::kPattern, "p:7:*"), "");
	EXPECT_NE(widening.covering(ItemKind::kPattern, "p:*:*"), "");
	EXPECT_EQ(widening.covering(ItemKind::kPattern, "p*"), "");
	EXPECT_EQ(widening.covering(ItemKind::kPattern, "q*:1"), "") << "its asterisk is a wildcard";
	EXPECT_EQ(widening.covering(ItemKind::kPattern, "p:[a]:*"), "");
}

TEST(Widening, ARepetitionIsWidenedWithItsDelay)
{
	std::string patterns = item(ItemKind::kPattern, "a:*");
	Widening widening(patterns);
	std::string_view covering = widening.covering(ItemKind::kRepeat, "\x05ka:7");

	EXPECT_EQ(covering, item(ItemKind::kRepeat, "\x05pa:*"));
	EXPECT_EQ(widening.covering(ItemKind::kRepeat, "\x05kb:7"), "");
}

TEST(Widening, NamesOfNoWatchAreCoveredByTheirForm)
{
	std::string patterns = item(ItemKind::kPattern, "a:*");
	Widening widening(patterns);
	std::deque<std::string> names;

	for (int i = 0; i < 5000; ++i)
	{
		names.push_back("user:" + std::to_string(i) + ":name");
		widening.learn(ItemKind::kKey, names.back());
		widening.learn(ItemKind::kTag, names.back());
		names.push_back("a:" + std::to_string(i));
		widening.learn(ItemKind::kKey, names.back());
	}
	widening.settle();
	EXPECT_EQ(widening.covering(ItemKind::kKey, "a:1"), item(ItemKind::kPattern, "a:*"));
	EXPECT_EQ(widening.covering(ItemKind::kKey, "user:1:name"),
	          item(ItemKind::kPattern, "user:*:name"));
	EXPECT_EQ(widening.covering(ItemKind::kTag, "user:1:name"),
	          item(ItemKind::kTagPattern, "user:*:name"));
	EXPECT_EQ(widening.covering(ItemKind::kPattern, "user:1:*"), "");
	EXPECT_EQ(widening.covering(ItemKind::kKey, "user:1:cart"), "");
}

/* "sess:*" would end everybody's. */
TEST(Widening, SessionsAreNeverReplacedByAForm)
{
	std::string patterns = item(ItemKind::kPattern, "sess:*");
	Widening widening(patterns);
	std::deque<std::string> names;

	for (int i = 0; i < 5000; ++i)
	{
		names.push_back("sess:user" + std::to_string(i) + ":name");
		widening.learn(ItemKind::kSession, names.back());
	}
	widening.settle();
	for (const std::string &name : names)
		EXPECT_EQ(widening.covering(ItemKind::kSession, name), "");
}

} /* namespace */
} /* namespace cache_ext::invalidation */
