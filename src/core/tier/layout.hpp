/*-------------------------------------------------------------------------
 *
 * layout.hpp
 *		How a store lies in its region; for the files of Store alone.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <cstring>

#include "core/tier/store.hpp"

namespace cache_ext::tier {

/* The queues of eviction. */
constexpr uint8_t kSmall = 0;
constexpr uint8_t kMain = 1;
constexpr uint8_t kMaxUses = 3;
constexpr uint32_t kGhostWays = 4;

struct Store::Chunk
{
	char bytes[kChunkBytes - sizeof(uint32_t)];
	uint32_t next;
};

struct Queue
{
	uint32_t newest;
	uint32_t oldest;
	uint64_t chunks;
	uint64_t entries;
};

struct alignas(kChunkBytes) Store::Header
{
	uint64_t slots_at; /* offsets from the header */
	uint64_t ghosts_at;
	uint64_t chunks_at;
	uint32_t slot_mask;
	uint32_t ghost_mask;
	uint32_t chunk_count;
	uint32_t untouched; /* chunks from here on were never used */
	uint32_t free_head;
	uint32_t ghost_clock; /* one more with each ghost */
	Queue queues[2];
	Counters counters;
};

static_assert(sizeof(Entry) <= kChunkBytes - sizeof(uint32_t));

/* The bytes of an entry behind its head, across its chunks. */
class Store::Cursor
{
  public:
	Cursor(Chunk *chunks, uint32_t first, size_t skip) noexcept
	    : chunks_(chunks), chunk_(first), at_(sizeof(Entry))
	{
		advance(skip);
	}

	void advance(size_t bytes) noexcept
	{
		walk(bytes, [](char *, size_t) {});
	}

	void read(char *to, size_t bytes) noexcept
	{
		walk(bytes, [&](const char *from, size_t part) {
			memcpy(to, from, part);
			to += part;
		});
	}

	void write(const void *from, size_t bytes) noexcept
	{
		auto *source = static_cast<const char *>(from);

		walk(bytes, [&](char *to, size_t part) {
			memcpy(to, source, part);
			source += part;
		});
	}

	bool equals(std::string_view with) noexcept
	{
		bool equal = true;

		walk(with.size(), [&](const char *from, size_t part) {
			equal = equal && memcmp(with.data(), from, part) == 0;
			with.remove_prefix(part);
		});
		return equal;
	}

  private:
	template <typename Fn> void walk(size_t bytes, Fn &&fn) noexcept
	{
		while (bytes > 0)
		{
			if (at_ == sizeof(Chunk::bytes))
			{
				chunk_ = chunks_[chunk_].next;
				at_ = 0;
			}

			size_t part = sizeof(Chunk::bytes) - at_;

			if (part > bytes)
				part = bytes;
			fn(chunks_[chunk_].bytes + at_, part);
			at_ += part;
			bytes -= part;
		}
	}

	Chunk *chunks_;
	uint32_t chunk_;
	size_t at_;
};

} /* namespace cache_ext::tier */
