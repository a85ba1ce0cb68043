/*-------------------------------------------------------------------------
 *
 * encoding.hpp
 *		The bytes of a partial row: variable-length integers and byte strings.
 *
 * Signed numbers are zigzag-coded (Protocol Buffers' sint64), so that the +1
 * and -1 of nearly every change take one byte.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

#include "core/base/error.hpp"

namespace cache_ext::statistics {

constexpr size_t kMaxVarint = 10;

/* Writes value at out and returns the position after it; needs kMaxVarint bytes of room. */
inline char *
put_varint(char *out, uint64_t value) noexcept
{
	while (value >= 0x80)
	{
		*out++ = static_cast<char>(value | 0x80);
		value >>= 7;
	}
	*out++ = static_cast<char>(value);
	return out;
}

constexpr uint64_t
zigzag(int64_t value) noexcept
{
	return (static_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63);
}

constexpr int64_t
unzigzag(uint64_t value) noexcept
{
	return static_cast<int64_t>(value >> 1) ^ -static_cast<int64_t>(value & 1);
}

/* Reads what put_varint and plain copies wrote; throws Error when the bytes end early. */
class Decoder
{
  public:
	Decoder(const char *data, size_t size) noexcept : at_(data), end_(data + size) {}

	bool done() const noexcept { return at_ == end_; }
	const char *position() const noexcept { return at_; }

	uint64_t varint()
	{
		uint64_t value = 0;

		for (unsigned shift = 0; shift < 64; shift += 7)
		{
			if (at_ == end_)
				break;
			auto byte = static_cast<unsigned char>(*at_++);
			value |= static_cast<uint64_t>(byte & 0x7f) << shift;
			if ((byte & 0x80) == 0)
				return value;
		}
		fail();
	}

	int64_t signed_varint() { return unzigzag(varint()); }

	std::string_view bytes(size_t size)
	{
		if (size > static_cast<size_t>(end_ - at_))
			fail();
		std::string_view result(at_, size);
		at_ += size;
		return result;
	}

	std::string_view sized_bytes() { return bytes(varint()); }

  private:
	[[noreturn]] static void fail()
	{
		throw Error(kDataCorrupted, "a partial row of a statistic is damaged", {},
		            "Rebuild the statistic with statistics_refresh().");
	}

	const char *at_;
	const char *end_;
};

} /* namespace cache_ext::statistics */
