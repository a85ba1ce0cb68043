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
 * Beside each counter is room for a mark, by which somebody notes what he knows of
 * it.  Names of different databases meet in one bucket, so a mark says whose it is.
 *
 * Plain memory that may be shared between processes: no pointers, atomics only.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "core/base/digest.hpp"

namespace cache_ext::tier {

constexpr uint32_t kGenerations = 65536;

static_assert(std::atomic<uint64_t>::is_always_lock_free);

struct Generation
{
	std::atomic<uint64_t> count;
	std::atomic<uint64_t> max_xid; /* the highest transaction that has raised the counter */
	std::atomic<uint64_t> at;      /* when it was raised last: for people */
	std::atomic<uint64_t> mark[2];
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

	/* Halves of two marks make a third that is nobody's: marks need no lock. */
	bool has_mark(uint32_t bucket, const Digest &mark) const noexcept
	{
		return all_[bucket].mark[0].load() == mark.high && all_[bucket].mark[1].load() == mark.low;
	}
	void set_mark(uint32_t bucket, const Digest &mark) noexcept
	{
		all_[bucket].mark[0].store(mark.high);
		all_[bucket].mark[1].store(mark.low);
	}

	const Generation &operator[](uint32_t bucket) const noexcept { return all_[bucket]; }

  private:
	Generation all_[kGenerations];
};

} /* namespace cache_ext::tier */
