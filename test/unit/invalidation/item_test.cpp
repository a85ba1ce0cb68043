/*-------------------------------------------------------------------------
 *
 * item_test.cpp
 *		Items come back from bytes, and broken bytes are noticed.
 *
 *-------------------------------------------------------------------------
 */
#include <gtest/gtest.h>

#include <string>

#include "core/invalidation/item.hpp"

namespace cache_ext::invalidation {
namespace {

std::string
number(uint64_t value)
{
	char bytes[kMaxNumberBytes];

	return {bytes, static_cast<size_t>(put_number(bytes, value) - bytes)};
}

std::string
counted(const std::string &text)
{
	return number(text.size()) + text;
}

TEST(Item, NumbersComeBack)
{
	for (uint64_t value : {uint64_t{0}, uint64_t{127}, uint64_t{128}, uint64_t{300}, ~uint64_t{0}})
	{
		std::string bytes = number(value) + "x";
		std::string_view rest = bytes;
		uint64_t read;

		EXPECT_EQ(bytes.size(), number_bytes(value) + 1);
		ASSERT_TRUE(take_number(rest, read));
		EXPECT_EQ(read, value);
		EXPECT_EQ(rest, "x");
	}
}

TEST(Item, ComesBackWhateverFollows)
{
	std::string bytes = "k" + counted("key") + "t" + counted(std::string(500, 'x'));
	std::string_view rest = bytes;
	ItemKind kind;
	std::string_view body;

	ASSERT_TRUE(take_item(rest, kind, body));
	EXPECT_EQ(kind, ItemKind::kKey);
	EXPECT_EQ(body, "key");
	ASSERT_TRUE(take_item(rest, kind, body));
	EXPECT_EQ(kind, ItemKind::kTag);
	EXPECT_EQ(body.size(), 500u);
	EXPECT_FALSE(take_item(rest, kind, body));
}

TEST(Item, SetKeepsAllItsParts)
{
	std::string body = std::string(1, kSetPlain) + number(5000) + counted("key") + number(2) +
	                   counted("a") + counted("") + std::string("va\0lue", 6);
	SetBody set;

	ASSERT_TRUE(set.read(body));
	EXPECT_TRUE(set.plain);
	EXPECT_EQ(set.ttl_ms, 5000u);
	EXPECT_EQ(set.key, "key");
	EXPECT_EQ(set.tag_count, 2u);
	EXPECT_EQ(set.value, std::string_view("va\0lue", 6));

	std::string_view tags = set.tags;
	std::string_view tag;

	ASSERT_TRUE(take_bytes(tags, tag));
	EXPECT_EQ(tag, "a");
	ASSERT_TRUE(take_bytes(tags, tag));
	EXPECT_EQ(tag, "");
}

TEST(Item, EveryCutIsNoticed)
{
	std::string item = "c" + counted(counted("channel") + "message");

	for (size_t cut = 0; cut < item.size(); ++cut)
	{
		std::string_view rest(item.data(), cut);
		ItemKind kind;
		std::string_view body;

		EXPECT_FALSE(take_item(rest, kind, body)) << cut;
	}

	std::string body = std::string(1, 0) + number(1) + counted("key") + number(1) + counted("tag");
	SetBody set;

	for (size_t cut = 0; cut < body.size(); ++cut)
		EXPECT_FALSE(set.read({body.data(), cut})) << cut;
	EXPECT_TRUE(set.read(body));
}

TEST(Item, AKeyIsRemovedByItsVeryNameOnly)
{
	std::string items = "t" + counted("sess:a") + "k" + counted("sess:b") + "x" +
	                    counted("sess:c") + "p" + counted("sess:*");

	EXPECT_FALSE(removes_key(items, "sess:a")) << "that is a tag";
	EXPECT_TRUE(removes_key(items, "sess:b"));
	EXPECT_TRUE(removes_key(items, "sess:c"));

	const std::string_view names[] = {"sess:a", "sess:b", "sess:bb", "sess:c", "sess:d"};
	bool removed[5] = {};

	mark_removed(items, names, 5, removed);
	for (int n = 0; n < 5; ++n)
		EXPECT_EQ(removed[n], removes_key(items, names[n])) << names[n];
	EXPECT_FALSE(removes_key(items, "sess:d"));
	EXPECT_FALSE(removes_key(items, "sess:"));
	EXPECT_FALSE(removes_key("", ""));
}

} /* namespace */
} /* namespace cache_ext::invalidation */
