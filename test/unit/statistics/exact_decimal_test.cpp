/*-------------------------------------------------------------------------
 *
 * exact_decimal_test.cpp
 *		Every digit of a double.
 *
 *-------------------------------------------------------------------------
 */
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>

#include "core/statistics/exact_decimal.hpp"

namespace cache_ext::statistics {
namespace {

std::string
decimal(double value)
{
	char out[kExactDecimalSize];

	exact_decimal(value, out);
	return out;
}

TEST(ExactDecimal, WritesTheWholeExpansion)
{
	EXPECT_EQ(decimal(0.0), "0");
	EXPECT_EQ(decimal(0.5), "0.5");
	EXPECT_EQ(decimal(-12.25), "-12.25");
	EXPECT_EQ(decimal(0.1), "0.1000000000000000055511151231257827021181583404541015625");
	EXPECT_EQ(decimal(1e23), "99999999999999991611392");
	EXPECT_EQ(decimal(9007199254740993.0), "9007199254740992");
}

TEST(ExactDecimal, HoldsTheLargestAndTheSmallest)
{
	double largest = std::numeric_limits<double>::max();
	double smallest = std::numeric_limits<double>::denorm_min();

	EXPECT_EQ(decimal(largest).size(), 309u);
	EXPECT_EQ(decimal(smallest).size(), 2u + 1074u);
	EXPECT_EQ(std::strtod(decimal(-largest).c_str(), nullptr), -largest);
	EXPECT_EQ(std::strtod(decimal(smallest).c_str(), nullptr), smallest);
}

TEST(ExactDecimal, ReadsBackAsTheSameNumberAndEndsInADigitThatCounts)
{
	std::mt19937_64 random(11);

	for (int i = 0; i < 20000; ++i)
	{
		uint64_t bits = random();
		double value;

		std::memcpy(&value, &bits, sizeof(value));
		if (!std::isfinite(value))
			continue;
		std::string digits = decimal(value);

		EXPECT_EQ(std::strtod(digits.c_str(), nullptr), value);
		if (digits.find('.') != std::string::npos)
		{
			EXPECT_EQ(digits.back(), '5') << "binary fractions end in 5: " << digits;
		}
	}
}

} /* namespace */
} /* namespace cache_ext::statistics */
