/*-------------------------------------------------------------------------
 *
 * eviction.cpp
 *		Which entries of a store make room for others; see store.hpp.
 *
 * S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for cache
 * eviction", SOSP 2023).  New entries go into a small queue of a tenth of the room.
 * Those used again there move to the main queue, the others leave, and their hashes
 * are remembered as ghosts; a ghost that comes back goes into the main queue at once.
 * The main queue gives an entry another round for each use, at most three.  A scan
 * passes through the small queue only.
 *
 *-------------------------------------------------------------------------
 */
#include "core/tier/layout.hpp"

namespace cache_ext::tier {

constexpr uint8_t kUsesToStay = 2; /* in the small queue, to move to the main one */
constexpr uint32_t kSmallShare = 10;

/* -------------------------------------------------------------------------
 * Queues and ghosts
 * -------------------------------------------------------------------------
 */

void
Store::enqueue(uint32_t number, uint8_t to) noexcept
{
	Entry &entry = at(number);
	Queue &queue = header_->queues[to];

	entry.queue = to;
	entry.newer = kNone;
	entry.older = queue.newest;
	if (queue.newest != kNone)
		at(queue.newest).newer = number;
	else
		queue.oldest = number;
	queue.newest = number;
	queue.chunks += entry.chunks;
	queue.entries += 1;
}

void
Store::dequeue(uint32_t number) noexcept
{
	Entry &entry = at(number);
	Queue &queue = header_->queues[entry.queue];

	if (entry.newer != kNone)
		at(entry.newer).older = entry.older;
	else
		queue.newest = entry.older;
	if (entry.older != kNone)
		at(entry.older).newer = entry.newer;
	else
		queue.oldest = entry.newer;
	queue.chunks -= entry.chunks;
	queue.entries -= 1;
}

/*
 * A ghost is a hash and the time of its leaving, counted in ghosts, in one of
 * four places.  It counts while no more ghosts have come after it than the main
 * queue has entries.  The time is never 0 in a place that is taken.
 */
void
Store::remember_ghost(uint32_t hash) noexcept
{
	uint32_t first = hash & header_->ghost_mask & ~(kGhostWays - 1);
	uint32_t now = ++header_->ghost_clock;
	uint32_t oldest = first;

	if (now == 0)
		now = ++header_->ghost_clock;
	for (uint32_t i = first; i < first + kGhostWays; ++i)
		if (now - static_cast<uint32_t>(ghosts_[i]) > now - static_cast<uint32_t>(ghosts_[oldest]))
			oldest = i;
	ghosts_[oldest] = static_cast<uint64_t>(hash) << 32 | now;
}

bool
Store::take_ghost(uint32_t hash) noexcept
{
	uint32_t first = hash & header_->ghost_mask & ~(kGhostWays - 1);

	for (uint32_t i = first; i < first + kGhostWays; ++i)
	{
		auto left_at = static_cast<uint32_t>(ghosts_[i]);

		if (ghosts_[i] >> 32 != hash || left_at == 0)
			continue;
		ghosts_[i] = 0;
		return header_->ghost_clock - left_at <= header_->queues[kMain].entries;
	}
	return false;
}

/* -------------------------------------------------------------------------
 * Making room
 * -------------------------------------------------------------------------
 */

bool
Store::drop_if_dead(uint32_t number, const Generations &generations, int64_t now) noexcept
{
	if (at(number).facts.keep_until > now && is_current(number, generations))
		return false;
	remove(number);
	header_->counters.expirations += 1;
	return true;
}

/*
 * Evict one entry of the queue, or find that none is left in it.  What deserves to
 * stay goes to the main queue's new end: from the small one with its uses forgotten,
 * from the main one with one less, so that somebody leaves in the end.
 */
bool
Store::evict_from(uint8_t queue, const Generations &generations, int64_t now) noexcept
{
	while (header_->queues[queue].oldest != kNone)
	{
		uint32_t number = header_->queues[queue].oldest;

		if (drop_if_dead(number, generations, now))
			return true;

		Entry &entry = at(number);
		uint8_t uses = entry.uses.load(std::memory_order_relaxed);

		if (uses < (queue == kSmall ? kUsesToStay : 1))
		{
			if (queue == kSmall)
				remember_ghost(entry.hash);
			remove(number);
			header_->counters.evictions += 1;
			return true;
		}
		dequeue(number);
		entry.uses.store(queue == kSmall ? 0 : static_cast<uint8_t>(uses - 1),
		                 std::memory_order_relaxed);
		enqueue(number, kMain);
	}
	return false;
}

bool
Store::make_room(uint32_t chunks, const Generations &generations, int64_t now) noexcept
{
	const Counters &counters = header_->counters;

	while (header_->chunk_count - counters.used_chunks < chunks)
	{
		bool small = header_->queues[kSmall].chunks * kSmallShare >= header_->chunk_count ||
		             header_->queues[kMain].entries == 0;

		if (!(small && evict_from(kSmall, generations, now)) &&
		    !evict_from(kMain, generations, now) && !evict_from(kSmall, generations, now))
			return false;
	}
	return true;
}

} /* namespace cache_ext::tier */
