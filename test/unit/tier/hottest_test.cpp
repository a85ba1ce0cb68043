/*-------------------------------------------------------------------------
 *
 * hottest_test.cpp
 *		The names that are asked for most are chosen, kept and read back.
 *
 *-------------------------------------------------------------------------
 */
#include "core/tier/hottest.hpp"

#include <gtest/gtest.h>

#include <memory>

namespace cache_ext::tier {
namespace {

std::vector<std::string>
names(const std::vector<HotName> &list, uint64_t scope)
{
	std::vector<std::string> found;

	for (const HotName &each : list)
		if (each.scope == scope)
			found.push_back(each.name);
	return found;
}

TEST(Hottest, KeepsTheHottestOfEachScope)
{
	Hottest hottest(3);

	for (uint64_t heat = 1; heat <= 100; ++heat)
		for (uint64_t scope : {1, 2})
		{
			/* Offered from the coolest on, and the other way round. */
			uint64_t offered = scope == 1 ? heat : 101 - heat;

			if (hottest.wants(scope, offered))
				hottest.add({scope, "n" + std::to_string(offered), offered, 0});
		}
	hottest.add({3, "alone", 0, 0});

	std::vector<HotName> found = hottest.take();
	std::vector<std::string> expected = {"n100", "n99", "n98"};

	EXPECT_EQ(names(found, 1), expected);
	EXPECT_EQ(names(found, 2), expected);
	EXPECT_EQ(names(found, 3), std::vector<std::string>{"alone"});
}

TEST(Hottest, CopiesNoNameThatItWouldNotKeep)
{
	Hottest hottest(2);

	hottest.add({1, "a", 5, 0});
	EXPECT_TRUE(hottest.wants(1, 0));
	hottest.add({1, "b", 7, 0});
	EXPECT_FALSE(hottest.wants(1, 5));
	EXPECT_TRUE(hottest.wants(1, 6));
	EXPECT_TRUE(hottest.wants(2, 0));
}

TEST(Hottest, RemembersWhatWasHotBehindWhatIsAndNotForEver)
{
	std::vector<HotName> before = {{1, "old", 9, 10},
	                               {1, "both", 9, 50},
	                               {1, "x", 9, 50},
	                               {1, "y", 9, 50},
	                               {2, "other", 9, 50}};
	std::vector<HotName> all = remember({{1, "both", 3, 100}, {1, "new", 2, 100}}, before, 3, 20);

	EXPECT_EQ(names(all, 1), (std::vector<std::string>{"both", "new", "x"}));
	EXPECT_EQ(names(all, 2), std::vector<std::string>{"other"});
	EXPECT_EQ(all[0].seen_at, 100);
	EXPECT_EQ(all[2].seen_at, 50);
}

TEST(Hottest, IsReadBackWholeOrNotAtAll)
{
	HotList list;

	list.attempts = 2;
	list.names = {{1ULL << 60, std::string("a\0b", 3), 0, -5}, {2, std::string(1024, 'x'), 0, 7}};

	std::string bytes = encode(list);
	auto read = decode_hot_list(bytes);

	ASSERT_TRUE(read);
	EXPECT_EQ(read->attempts, 2U);
	ASSERT_EQ(read->names.size(), 2U);
	EXPECT_EQ(read->names[0].name, std::string("a\0b", 3));
	EXPECT_EQ(read->names[0].scope, 1ULL << 60);
	EXPECT_EQ(read->names[0].seen_at, -5);
	EXPECT_EQ(read->names[1].name, std::string(1024, 'x'));
	EXPECT_TRUE(decode_hot_list(encode({})));

	for (size_t cut = 0; cut < bytes.size(); ++cut)
		EXPECT_FALSE(decode_hot_list(bytes.substr(0, cut))) << "cut at " << cut;
	for (size_t at = 0; at < bytes.size(); at += 7)
	{
		std::string damaged = bytes;

		damaged[at] = static_cast<char>(damaged[at] ^ 1);
		EXPECT_FALSE(decode_hot_list(damaged)) << "damaged at " << at;
	}
	EXPECT_FALSE(decode_hot_list(bytes + "x"));
}

TEST(Hottest, IsHotterWhatEvictionHasSeenUsedOfLate)
{
	auto used = std::make_unique<Entry>(), hit = std::make_unique<Entry>();

	used->uses = 2;
	used->hits = 2;
	hit->uses = 1;
	hit->hits = 1000000;
	EXPECT_GT(heat_of(*used), heat_of(*hit));
	hit->uses = 2;
	EXPECT_LT(heat_of(*used), heat_of(*hit));
}

} /* namespace */
} /* namespace cache_ext::tier */
