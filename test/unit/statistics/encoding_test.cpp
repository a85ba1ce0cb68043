/*-------------------------------------------------------------------------
 *
 * encoding_test.cpp
 *		The bytes of partial rows.
 *
 *-------------------------------------------------------------------------
 */
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>

#include "core/statistics/encoding.hpp"

namespace cache_ext::statistics {
namespace {

std::string
encoded(uint64_t value)
{
	char buffer[kMaxVarint];

	return {buffer, put_varint(buffer, value)};
}

TEST(Encoding, GivesEveryNumberBack)
{
	for (int shift = 0; shift < 64; ++shift)
	{
		for (uint64_t value : {uint64_t{1} << shift, (uint64_t{1} << shift) - 1})
		{
			std::string bytes = encoded(value);
			Decoder decoder(bytes.data(), bytes.size());

			EXPECT_EQ(decoder.varint(), value);
			EXPECT_TRUE(decoder.done());
		}
	}
}

TEST(Encoding, TakesOneByteForTheUsualChanges)
{
	for (int64_t change : {-64, -1, 0, 1, 63})
		EXPECT_EQ(encoded(zigzag(change)).size(), 1u) << change;
}

TEST(Encoding, KeepsTheSignOfExtremes)
{
	for (int64_t value : {std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max(),
	                      int64_t{-1}, int64_t{0}, int64_t{1}})
		EXPECT_EQ(unzigzag(zigzag(value)), value);
}

TEST(Encoding, RefusesBytesThatEndEarlyHoweverTheyAreCut)
{
	std::string bytes = encoded(300) + encoded(5) + "value" + encoded(uint64_t{1} << 40);

	for (size_t cut = 0; cut < bytes.size(); ++cut)
	{
		Decoder decoder(bytes.data(), cut);

		EXPECT_THROW(
		    {
			    (void) decoder.varint();
			    (void) decoder.sized_bytes();
			    (void) decoder.varint();
		    },
		    Error)
		    << "cut at " << cut;
	}
}

TEST(Encoding, RefusesANumberWithoutEnd)
{
	std::string bytes(64, '\xff');
	Decoder decoder(bytes.data(), bytes.size());

	EXPECT_THROW((void) decoder.varint(), Error);
}

TEST(Encoding, RefusesALengthBeyondTheEnd)
{
	std::string bytes = encoded(std::numeric_limits<uint64_t>::max()) + "x";
	Decoder decoder(bytes.data(), bytes.size());

	EXPECT_THROW((void) decoder.sized_bytes(), Error);
}

} /* namespace */
} /* namespace cache_ext::statistics */
