/*-------------------------------------------------------------------------
 *
 * exact_decimal.hpp
 *		The exact decimal value of a binary floating-point number.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <cstddef>

namespace cache_ext::statistics {

/* 309 digits before the point, 1074 after it, sign, point and terminator. */
constexpr size_t kExactDecimalSize = 1400;

/*
 * Writes every digit of a finite value, without exponent, NUL-terminated.
 * Every double is m * 2^e, so its decimal expansion is finite; conversions to
 * 15 or 17 digits, as in a cast to numeric, lose that.
 */
void exact_decimal(double value, char (&out)[kExactDecimalSize]) noexcept;

} /* namespace cache_ext::statistics */
