/*-------------------------------------------------------------------------
 *
 * delta_test.cpp
 *		Netting the changes of a statement, against std::map.
 *
 *-------------------------------------------------------------------------
 */
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>

#include "core/statistics/delta.hpp"

namespace cache_ext::statistics {
namespace {

std::map<std::string, int64_t>
sums(Delta *delta)
{
	std::map<std::string, int64_t> out;

	delta->for_each([&](std::string_view key, const int64_t *cells, size_t count, const bool *) {
		EXPECT_EQ(count, 1u);
		EXPECT_TRUE(out.emplace(std::string(key), cells[0]).second) << "a key twice";
	});
	return out;
}

TEST(Delta, AddsUpByKeyLikeAMapWhateverTheSize)
{
	std::mt19937 random(7);

	for (int keys : {1, 8, 9, 100, 5000})
	{
		Delta delta;
		std::map<std::string, int64_t> expected;

		for (int i = 0; i < 4 * keys; ++i)
		{
			std::string key = "key" + std::to_string(random() % keys) + std::string(i % 3, '\0');
			int64_t change = static_cast<int64_t>(random() % 5) - 2;

			*delta.cells(key, 1, nullptr) += change;
			expected[key] += change;
		}
		EXPECT_EQ(sums(&delta), expected) << keys << " keys";
		EXPECT_EQ(delta.size(), expected.size());
	}
}

TEST(Delta, KeepsKeysApartThatDifferInTheirEndOnly)
{
	Delta delta;

	*delta.cells(std::string_view("a\0", 2), 1, nullptr) += 1;
	*delta.cells("a", 1, nullptr) += 2;
	*delta.cells("", 1, nullptr) += 3;
	EXPECT_EQ(delta.size(), 3u);
}

TEST(Delta, StartsEveryKeyAtZeroAlsoAfterClear)
{
	Delta delta;

	for (int round = 0; round < 3; ++round)
	{
		for (int i = 0; i < 50; ++i)
		{
			int64_t *cells = delta.cells(std::to_string(i), 3, nullptr);

			EXPECT_EQ(cells[0] + cells[1] + cells[2], 0);
			cells[round] = 9;
		}
		delta.clear();
		EXPECT_EQ(delta.size(), 0u);
	}
}

TEST(Delta, GivesTheMemoryOfABulkStatementBack)
{
	Delta delta;

	for (int i = 0; i < 100000; ++i)
		*delta.cells(std::to_string(i), 1, nullptr) = 1;
	EXPECT_GT(delta.bytes(), 1000000u);
	delta.clear();
	EXPECT_EQ(delta.bytes(), 0u);
}

} /* namespace */
} /* namespace cache_ext::statistics */
