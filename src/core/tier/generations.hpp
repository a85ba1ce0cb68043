/*-------------------------------------------------------------------------
 *
 * generations.hpp
 *		Counters that void entries of the memory tier in constant time.
 *
 * Every name that an entry depends on (its key, prefix, tags, and everything)
 * falls into a bucket; whoever invalidates a name raises its bucket's counter.
 * An entry remembers the sum of its buckets' counters.  Counters only grow, so an
 * equal sum means that none of them has moved.  Two names in one bucket only cost
 * each other misses.
 *
 * Beside each counter stands up to which count Redis is known to have heard of it.
 *
 * Plain memory that may be shared between processes: no pointers, atomics only.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace cache_ext::tier {

constexpr uint32_t kGenerations = 65536;

static_assert(std::atomic<uint64_t>::is_always_lock_free);

struct Generation
{
	std::atomic<uint64_t> count;
	std::atomic<uint64_t> max_xid; /* the highest transaction that has raised the counter */
	std::atomic<uint64_t> at;      /* when it was raised last: for people */
	std::atomic<uint64_t> told;    /* what was counted by then Redis has heard; 0: nobody knows */
};

class Generations
{
  public:
	/*
	 * The order matters to readers that keep to a snapshot: who sees the counter
	 * sees the transaction as well.
	 */
	void raise(uint32_t bucket, uint64_t xid, uint64_t at) noexcept
	{
		Generation &generation = all_[bucket];
		uint64_t before = generation.max_xid.load();

		while (before < xid && !generation.max_xid.compare_exchange_weak(before, xid))
			;
		generation.at.store(at, std::memory_order_relaxed);
		generation.count.fetch_add(1);
	}

	uint64_t sum(const uint32_t *buckets, size_t count) const noexcept
	{
		uint64_t sum = 0;

		for (size_t i = 0; i < count; ++i)
			sum += all_[buckets[i]].count.load();
		return sum;
	}

	uint64_t max_xid(const uint32_t *buckets, size_t count) const noexcept
	{
		uint64_t highest = 0;

		for (size_t i = 0; i < count; ++i)
		{
			uint64_t xid = all_[buckets[i]].max_xid.load();

			if (xid > highest)
				highest = xid;
		}
		return highest;
	}

	/* A count as `told` has it: one more, since counting begins without knowing anything. */
	uint64_t count_to_tell(uint32_t bucket) const noexcept { return all_[bucket].count.load() + 1; }
	bool is_told(uint32_t bucket, uint64_t count) const noexcept
	{
		return all_[bucket].told.load() == count;
	}
	void note_told(uint32_t bucket, uint64_t count) noexcept { all_[bucket].told.store(count); }

	const Generation &operator[](uint32_t bucket) const noexcept { return all_[bucket]; }

  private:
	Generation all_[kGenerations];
};

} /* namespace cache_ext::tier */
