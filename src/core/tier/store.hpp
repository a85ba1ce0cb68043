/*-------------------------------------------------------------------------
 *
 * store.hpp
 *		Cache entries of any size in a plain region of bytes.
 *
 * The region may be mapped anywhere, by many processes: it holds numbers, no
 * pointers.  The caller brings the lock:
 *
 *	shared		find, and everything that takes what find returned
 *	exclusive	put, remove
 *
 * A hit writes nothing but two counters of the entry, as atomics, so readers never
 * wait for one another.  README.md says why it is built this way.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/base/digest.hpp"
#include "core/tier/generations.hpp"

namespace cache_ext::tier {

constexpr size_t kChunkBytes = 128;
constexpr uint32_t kNone = UINT32_MAX;

/* What is said about an entry besides its bytes; opaque to the store but for the times. */
struct Facts
{
	int64_t loaded_at;
	int64_t expires_at; /* fresh until then */
	int64_t keep_until; /* of use until then: not before expires_at */
	Digest audience;
	uint64_t set_by;  /* the transaction that must have committed for it to exist; 0: none */
	uint32_t load_us; /* 0: no query has made it */
	uint32_t by_settings;
};

/* An entry to be stored: views into the caller's memory. */
struct NewEntry
{
	uint64_t scope; /* keys of different scopes are different */
	std::string_view key;
	std::string_view tags; /* as the caller encodes them */
	std::string_view value;
	const uint32_t *buckets;
	uint32_t bucket_count;
	uint64_t sum;
	Facts facts;
};

/* The head of an entry, in its first chunk. */
struct Entry
{
	uint64_t scope;
	uint64_t sum;
	Facts facts;
	uint32_t hash;
	uint32_t chain; /* the next entry of the same slot */
	uint32_t newer; /* neighbours in its queue */
	uint32_t older;
	uint32_t chunks;
	uint32_t value_bytes;
	uint32_t tags_bytes;
	uint16_t key_bytes;
	uint16_t bucket_count;
	uint32_t loads; /* of this name by queries, as long as an entry of it lies here */
	mutable std::atomic<uint32_t> hits;
	mutable std::atomic<uint8_t> uses; /* since it was last looked at for eviction, at most 3 */
	uint8_t queue;
};

struct Counters
{
	uint64_t entries;
	uint64_t used_chunks;
	uint64_t sets;
	uint64_t evictions;   /* of valid entries */
	uint64_t expirations; /* of void or expired ones, when their room was needed */
};

/* The hash of a key in a scope; its high half is not used by the store: for partitions. */
uint64_t hash_of(uint64_t scope, std::string_view key) noexcept;

class Store
{
  public:
	/* The smallest region that format() accepts. */
	static constexpr size_t kMinBytes = 64 * 1024;

	/* Lays out an empty store; the region is aligned to 128 bytes. */
	static void format(void *region, size_t bytes) noexcept;

	/* A store that format() has laid out; the object is only a view of it. */
	explicit Store(void *region) noexcept;

	/* The entry of the key, valid or not, or kNone. */
	uint32_t find(uint64_t scope, std::string_view key, uint64_t hash_of_both) const noexcept;
	uint32_t find(uint64_t scope, std::string_view key) const noexcept
	{
		return find(scope, key, hash_of(scope, key));
	}

	const Entry &entry(uint32_t number) const noexcept;
	bool is_current(uint32_t number, const Generations &generations) const noexcept;
	uint64_t max_xid(uint32_t number, const Generations &generations) const noexcept;
	void note_hit(uint32_t number) const noexcept;

	/* To memory with room for key_bytes, or tags_bytes + value_bytes. */
	void copy_key(uint32_t number, char *to) const noexcept;
	void copy_tags_and_value(uint32_t number, char *to) const noexcept;

	/*
	 * Store the entry in place of what has its key.  Not when it is too large, when
	 * it is void already, or when a valid entry is there that was loaded later.
	 */
	bool put(const NewEntry &entry, const Generations &generations, int64_t now) noexcept;

	void remove(uint32_t number) noexcept;

	/* Every entry, in no order. */
	template <typename Fn> void for_each(Fn &&fn) const
	{
		for (uint32_t slot = 0; slot <= slot_mask(); ++slot)
			for (uint32_t at = slots_[slot]; at != kNone; at = entry(at).chain)
				fn(at);
	}

	const Counters &counters() const noexcept;
	uint64_t capacity_chunks() const noexcept;

	/* The most bytes that keys, tags, bucket numbers and value of one entry may have. */
	uint64_t max_entry_bytes() const noexcept;

	/* Do links, queues and counters agree?  For tests. */
	bool is_consistent() const noexcept;

  private:
	struct Header;
	struct Chunk;
	class Cursor;

	uint32_t slot_mask() const noexcept;
	Entry &at(uint32_t number) const noexcept;
	uint32_t take_chunk() noexcept;
	bool make_room(uint32_t chunks, const Generations &generations, int64_t now) noexcept;
	bool evict_from(uint8_t queue, const Generations &generations, int64_t now) noexcept;
	bool drop_if_dead(uint32_t number, const Generations &generations, int64_t now) noexcept;
	void enqueue(uint32_t number, uint8_t queue) noexcept;
	void dequeue(uint32_t number) noexcept;
	void remember_ghost(uint32_t hash) noexcept;
	bool take_ghost(uint32_t hash) noexcept;
	void write(uint32_t number, const NewEntry &entry) noexcept;

	Header *header_;
	uint32_t *slots_;
	uint64_t *ghosts_;
	Chunk *chunks_;
};

} /* namespace cache_ext::tier */
