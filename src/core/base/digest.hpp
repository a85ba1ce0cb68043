/*-------------------------------------------------------------------------
 *
 * digest.hpp
 *		A 128-bit fingerprint that every language can compute: FNV-1a.
 *
 * It tells values apart that nobody chose to collide (random nonces, server
 * identities, role numbers).  It is no protection against somebody who may
 * write to Redis: such a person chooses the values themselves anyway.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace cache_ext {

/* Plain data: may live in shared memory and in contexts. */
struct Digest
{
	uint64_t high;
	uint64_t low;

	static constexpr size_t kSize = 16;

	/* The 16 bytes, most significant first. */
	std::string bytes() const
	{
		std::string out(kSize, '\0');

		for (size_t i = 0; i < 8; ++i)
		{
			out[i] = static_cast<char>(high >> (56 - 8 * i));
			out[8 + i] = static_cast<char>(low >> (56 - 8 * i));
		}
		return out;
	}

	/* The inverse of bytes(); the view must hold at least kSize bytes. */
	static Digest from_bytes(std::string_view view) noexcept
	{
		Digest digest{0, 0};

		for (size_t i = 0; i < 8; ++i)
		{
			digest.high = digest.high << 8 | static_cast<unsigned char>(view[i]);
			digest.low = digest.low << 8 | static_cast<unsigned char>(view[8 + i]);
		}
		return digest;
	}

	/* 32 hexadecimal digits, for tables and people. */
	std::string hex() const
	{
		static const char kDigits[] = "0123456789abcdef";
		std::string out;

		for (unsigned char byte : bytes())
		{
			out.push_back(kDigits[byte >> 4]);
			out.push_back(kDigits[byte & 15]);
		}
		return out;
	}
};

inline bool
operator==(const Digest &a, const Digest &b) noexcept
{
	return a.high == b.high && a.low == b.low;
}

inline bool
operator!=(const Digest &a, const Digest &b) noexcept
{
	return !(a == b);
}

class Digester
{
  public:
	Digester &add(std::string_view bytes) noexcept
	{
		for (unsigned char byte : bytes)
			state_ = (state_ ^ byte) * kPrime;
		return *this;
	}

	/* As its eight bytes, most significant first. */
	Digester &add(uint64_t number) noexcept
	{
		for (int shift = 56; shift >= 0; shift -= 8)
			state_ = (state_ ^ (number >> shift & 0xff)) * kPrime;
		return *this;
	}

	Digest finish() const noexcept
	{
		return {static_cast<uint64_t>(state_ >> 64), static_cast<uint64_t>(state_)};
	}

  private:
	__extension__ using Wide = unsigned __int128;

	static constexpr Wide kPrime = static_cast<Wide>(1) << 88 | 0x13b;
	static constexpr Wide kOffset =
	    static_cast<Wide>(0x6c62272e07bb0142ULL) << 64 | 0x62b821756295c58dULL;

	Wide state_ = kOffset;
};

} /* namespace cache_ext */
