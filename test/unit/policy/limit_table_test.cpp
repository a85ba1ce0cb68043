/*-------------------------------------------------------------------------
 *
 * limit_table_test.cpp
 *		A key finds its own state for as long as that means something.
 *
 *-------------------------------------------------------------------------
 */
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

#include "core/policy/limit_table.hpp"

namespace cache_ext::policy {
namespace {

TEST(LimitTable, AgreesWithAMapWhateverComesAndGoes)
{
	std::mt19937_64 random(3);
	std::vector<LimitPlace> places(32);
	LimitTable table(places.data(), places.size());
	std::map<uint64_t, std::pair<int64_t, int64_t>> known; /* until, value */
	int64_t now = 1;
	int full = 0;

	for (int round = 0; round < 50000; ++round)
	{
		uint64_t name = random() % 60;
		Digest key{name, name % 7}; /* many want the same place */
		bool robbed;

		now += static_cast<int64_t>(random() % 3);
		for (auto it = known.begin(); it != known.end();)
			it = it->second.first <= now ? known.erase(it) : std::next(it);
		EXPECT_EQ(table.used(now), known.size());

		LimitPlace *place = table.find(key, now, false, &robbed);

		EXPECT_FALSE(robbed);
		if (known.count(name) != 0)
		{
			ASSERT_NE(place, nullptr);
			EXPECT_EQ(place->state.time, known[name].second);
			EXPECT_EQ(place->until_us, known[name].first);
		}
		else if (known.size() == places.size())
		{
			EXPECT_EQ(place, nullptr);
			++full;
			continue;
		}
		ASSERT_NE(place, nullptr) << known.size();
		place->until_us = now + 1 + static_cast<int64_t>(random() % 90);
		place->state.time = round;
		known[name] = {place->until_us, round};
	}
	EXPECT_GT(full, 100);
}

TEST(LimitTable, GivesUpTheOneThatWouldBeFreeFirst)
{
	std::vector<LimitPlace> places(8);
	LimitTable table(places.data(), places.size());
	bool robbed;

	for (uint64_t i = 0; i < 8; ++i)
		table.find({i, 5}, 10, false, &robbed)->until_us = 100 + static_cast<int64_t>(i * 37 % 8);
	EXPECT_EQ(table.find({99, 5}, 10, false, &robbed), nullptr);
	ASSERT_NE(table.find({99, 5}, 10, true, &robbed), nullptr);
	EXPECT_TRUE(robbed);
	table.find({99, 5}, 10, false, &robbed)->until_us = 200;
	EXPECT_EQ(table.find({0, 5}, 10, false, &robbed), nullptr) << "the first was to go";
	EXPECT_NE(table.find({7, 5}, 10, false, &robbed), nullptr);
}

} /* namespace */
} /* namespace cache_ext::policy */
