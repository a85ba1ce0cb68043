/*-------------------------------------------------------------------------
 *
 * exact_decimal.cpp
 *		See exact_decimal.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include <charconv>
#include <cmath>
#include <cstdint>

#include "core/statistics/exact_decimal.hpp"

namespace cache_ext::statistics {

/* How many binary places the value has after the point: as many decimal places are exact. */
static int
binary_places(double value) noexcept
{
	if (value == 0)
		return 0;

	int exponent;
	double fraction = std::frexp(value, &exponent);
	auto mantissa = static_cast<uint64_t>(std::ldexp(std::fabs(fraction), 53));
	int lowest_bit = exponent - 53 + __builtin_ctzll(mantissa);

	return lowest_bit < 0 ? -lowest_bit : 0;
}

void
exact_decimal(double value, char (&out)[kExactDecimalSize]) noexcept
{
	auto written = std::to_chars(out, out + kExactDecimalSize - 1, value, std::chars_format::fixed,
	                             binary_places(value));

	*written.ptr = '\0';
}

} /* namespace cache_ext::statistics */
