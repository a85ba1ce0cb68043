/*-------------------------------------------------------------------------
 *
 * store.cpp
 *		Cache entries of any size in a plain region of bytes; see store.hpp.
 *
 * An entry is a chain of chunks of equal size, so any free chunk serves any
 * entry: there is no fragmentation but the rest of each entry's last chunk.
 *
 *-------------------------------------------------------------------------
 */
#include <cstring>
#include <new>

#include "core/tier/layout.hpp"

namespace cache_ext::tier {

namespace {

constexpr uint32_t kChunksPerSlot = 2;

uint32_t
power_of_two_above(uint64_t wanted) noexcept
{
	uint32_t size = kGhostWays;

	while (size < wanted && size < (1U << 30))
		size *= 2;
	return size;
}

} /* namespace */

static size_t
body_bytes(const Entry &entry) noexcept
{
	return entry.bucket_count * sizeof(uint32_t) + entry.key_bytes + entry.tags_bytes +
	       entry.value_bytes;
}

static uint64_t
chunks_for(uint64_t body) noexcept
{
	constexpr uint64_t kUsable = kChunkBytes - sizeof(uint32_t);

	return (sizeof(Entry) + body + kUsable - 1) / kUsable;
}

/* Eight bytes at a time (wyhash's mixing step); stays inside the server, so it may change. */
uint64_t
hash_of(uint64_t scope, std::string_view key) noexcept
{
	__extension__ using Wide = unsigned __int128;
	auto mix = [](uint64_t a, uint64_t b) {
		Wide product = static_cast<Wide>(a) * b;

		return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
	};
	uint64_t hash = mix(scope ^ 0xa0761d6478bd642fULL, key.size() ^ 0xe7037ed1a0b428dbULL);

	while (!key.empty())
	{
		uint64_t word = 0;
		size_t part = key.size() < sizeof(word) ? key.size() : sizeof(word);

		memcpy(&word, key.data(), part);
		hash = mix(hash ^ word, 0x8ebc6af09c88c6e3ULL);
		key.remove_prefix(part);
	}
	return mix(hash, 0x589965cc75374cc3ULL);
}

/* -------------------------------------------------------------------------
 * Layout
 * -------------------------------------------------------------------------
 */

void
Store::format(void *region, size_t bytes) noexcept
{
	auto *header = new (region) Header();
	uint64_t per_slot = kChunksPerSlot * kChunkBytes + sizeof(uint32_t) + sizeof(uint64_t);
	uint64_t wanted = bytes / per_slot;
	/* Powers of two round up: at most as much again, which the chunks give. */
	uint32_t slots = power_of_two_above(wanted / 2 + 1);

	header->slots_at = sizeof(Header);
	header->ghosts_at = header->slots_at + slots * sizeof(uint32_t);
	header->chunks_at = header->ghosts_at + slots * sizeof(uint64_t);
	header->chunks_at = (header->chunks_at + kChunkBytes - 1) / kChunkBytes * kChunkBytes;

	uint64_t chunks = (bytes - header->chunks_at) / kChunkBytes;

	header->chunk_count = static_cast<uint32_t>(chunks < kNone ? chunks : kNone - 1);
	header->slot_mask = slots - 1;
	header->ghost_mask = slots - 1;
	header->free_head = kNone;
	for (Queue &queue : header->queues)
		queue.newest = queue.oldest = kNone;
	memset(static_cast<char *>(region) + header->slots_at, 0xff, slots * sizeof(uint32_t));
	memset(static_cast<char *>(region) + header->ghosts_at, 0, slots * sizeof(uint64_t));
}

Store::Store(void *region) noexcept
    : header_(static_cast<Header *>(region)),
      slots_(reinterpret_cast<uint32_t *>(static_cast<char *>(region) + header_->slots_at)),
      ghosts_(reinterpret_cast<uint64_t *>(static_cast<char *>(region) + header_->ghosts_at)),
      chunks_(reinterpret_cast<Chunk *>(static_cast<char *>(region) + header_->chunks_at))
{
}

uint32_t
Store::slot_mask() const noexcept
{
	return header_->slot_mask;
}

Entry &
Store::at(uint32_t number) const noexcept
{
	return *reinterpret_cast<Entry *>(chunks_[number].bytes);
}

const Entry &
Store::entry(uint32_t number) const noexcept
{
	return at(number);
}

const Counters &
Store::counters() const noexcept
{
	return header_->counters;
}

uint64_t
Store::capacity_chunks() const noexcept
{
	return header_->chunk_count;
}

/* Half the store: a value never empties it. */
uint64_t
Store::max_entry_bytes() const noexcept
{
	return header_->chunk_count / 2 * (kChunkBytes - sizeof(uint32_t)) - sizeof(Entry);
}

/* -------------------------------------------------------------------------
 * Reading
 * -------------------------------------------------------------------------
 */

uint32_t
Store::find(uint64_t scope, std::string_view key, uint64_t hash_of_both) const noexcept
{
	auto hash = static_cast<uint32_t>(hash_of_both);
	uint32_t number = slots_[hash & header_->slot_mask];

	for (; number != kNone; number = at(number).chain)
	{
		const Entry &candidate = at(number);

		if (candidate.hash == hash && candidate.scope == scope &&
		    candidate.key_bytes == key.size() &&
		    Cursor(chunks_, number, candidate.bucket_count * sizeof(uint32_t)).equals(key))
			return number;
	}
	return kNone;
}

/* Few enough for the stack; entries of more buckets are read in turns. */
constexpr size_t kBucketsAtOnce = 32;

bool
Store::is_current(uint32_t number, const Generations &generations) const noexcept
{
	const Entry &entry = at(number);
	Cursor cursor(chunks_, number, 0);
	uint32_t buckets[kBucketsAtOnce];
	uint64_t sum = 0;

	for (size_t left = entry.bucket_count; left > 0;)
	{
		size_t part = left < kBucketsAtOnce ? left : kBucketsAtOnce;

		cursor.read(reinterpret_cast<char *>(buckets), part * sizeof(uint32_t));
		sum += generations.sum(buckets, part);
		left -= part;
	}
	return sum == entry.sum;
}

uint64_t
Store::max_xid(uint32_t number, const Generations &generations) const noexcept
{
	const Entry &entry = at(number);
	Cursor cursor(chunks_, number, 0);
	uint32_t buckets[kBucketsAtOnce];
	uint64_t highest = 0;

	for (size_t left = entry.bucket_count; left > 0;)
	{
		size_t part = left < kBucketsAtOnce ? left : kBucketsAtOnce;

		cursor.read(reinterpret_cast<char *>(buckets), part * sizeof(uint32_t));

		uint64_t xid = generations.max_xid(buckets, part);

		if (xid > highest)
			highest = xid;
		left -= part;
	}
	return highest;
}

/* Counts may be lost between processes; the bound of uses is what eviction relies on. */
void
Store::note_hit(uint32_t number) const noexcept
{
	const Entry &entry = at(number);
	uint8_t uses = entry.uses.load(std::memory_order_relaxed);

	entry.hits.store(entry.hits.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
	if (uses < kMaxUses)
		entry.uses.store(static_cast<uint8_t>(uses + 1), std::memory_order_relaxed);
}

void
Store::copy_key(uint32_t number, char *to) const noexcept
{
	const Entry &entry = at(number);

	Cursor(chunks_, number, entry.bucket_count * sizeof(uint32_t)).read(to, entry.key_bytes);
}

void
Store::copy_tags_and_value(uint32_t number, char *to) const noexcept
{
	const Entry &entry = at(number);

	Cursor(chunks_, number, entry.bucket_count * sizeof(uint32_t) + entry.key_bytes)
	    .read(to, size_t{entry.tags_bytes} + entry.value_bytes);
}

/* -------------------------------------------------------------------------
 * Storing
 * -------------------------------------------------------------------------
 */

void
Store::remove(uint32_t number) noexcept
{
	Entry &entry = at(number);
	uint32_t *link = &slots_[entry.hash & header_->slot_mask];

	while (*link != number)
		link = &at(*link).chain;
	*link = entry.chain;
	dequeue(number);
	header_->counters.entries -= 1;
	header_->counters.used_chunks -= entry.chunks;

	uint32_t last = number;

	while (chunks_[last].next != kNone)
		last = chunks_[last].next;
	chunks_[last].next = header_->free_head;
	header_->free_head = number;
}

uint32_t
Store::take_chunk() noexcept
{
	uint32_t chunk = header_->free_head;

	if (chunk == kNone)
		return header_->untouched++;
	header_->free_head = chunks_[chunk].next;
	return chunk;
}

void
Store::write(uint32_t number, const NewEntry &from) noexcept
{
	Cursor cursor(chunks_, number, 0);

	cursor.write(from.buckets, from.bucket_count * sizeof(uint32_t));
	cursor.write(from.key.data(), from.key.size());
	cursor.write(from.tags.data(), from.tags.size());
	cursor.write(from.value.data(), from.value.size());
}

bool
Store::put(const NewEntry &from, const Generations &generations, int64_t now) noexcept
{
	uint64_t body = uint64_t{from.bucket_count} * sizeof(uint32_t) + from.key.size() +
	                from.tags.size() + from.value.size();

	if (body > max_entry_bytes() || from.key.size() > UINT16_MAX ||
	    from.bucket_count > UINT16_MAX || from.facts.keep_until <= now ||
	    generations.sum(from.buckets, from.bucket_count) != from.sum)
		return false;

	uint32_t there = find(from.scope, from.key);
	auto hash = static_cast<uint32_t>(hash_of(from.scope, from.key));
	uint8_t uses = 0;
	uint8_t queue = kSmall;
	uint32_t loads = from.facts.load_us > 0 ? 1 : 0;
	uint32_t hits = 0;

	if (there != kNone)
	{
		const Entry &old = at(there);

		if (old.facts.loaded_at > from.facts.loaded_at && old.facts.expires_at > now &&
		    is_current(there, generations))
			return false;
		/* A name's popularity outlives its value. */
		uses = old.uses.load(std::memory_order_relaxed);
		loads += old.loads;
		hits = old.hits.load(std::memory_order_relaxed);
		queue = old.queue;
		remove(there);
	}
	else if (take_ghost(hash))
		queue = kMain;

	auto chunks = static_cast<uint32_t>(chunks_for(body));

	if (!make_room(chunks, generations, now))
		return false;

	uint32_t first = take_chunk();
	uint32_t last = first;

	for (uint32_t i = 1; i < chunks; ++i)
	{
		uint32_t next = take_chunk();

		chunks_[last].next = next;
		last = next;
	}
	chunks_[last].next = kNone;

	auto *entry = new (chunks_[first].bytes) Entry();

	entry->scope = from.scope;
	entry->sum = from.sum;
	entry->facts = from.facts;
	entry->hash = hash;
	entry->chunks = chunks;
	entry->value_bytes = static_cast<uint32_t>(from.value.size());
	entry->tags_bytes = static_cast<uint32_t>(from.tags.size());
	entry->key_bytes = static_cast<uint16_t>(from.key.size());
	entry->bucket_count = static_cast<uint16_t>(from.bucket_count);
	entry->loads = loads;
	entry->hits.store(hits, std::memory_order_relaxed);
	entry->uses.store(uses, std::memory_order_relaxed);
	write(first, from);

	uint32_t &slot = slots_[hash & header_->slot_mask];

	entry->chain = slot;
	slot = first;
	enqueue(first, queue);
	header_->counters.entries += 1;
	header_->counters.used_chunks += chunks;
	header_->counters.sets += 1;
	return true;
}

/* -------------------------------------------------------------------------
 * For tests
 * -------------------------------------------------------------------------
 */

bool
Store::is_consistent() const noexcept
{
	uint64_t entries = 0;
	uint64_t chunks = 0;
	uint64_t queued = 0;
	uint64_t free = 0;
	bool good = true;

	for_each([&](uint32_t number) {
		const Entry &entry = at(number);
		uint64_t length = 0;

		for (uint32_t c = number; c != kNone && length <= header_->chunk_count; c = chunks_[c].next)
			++length;
		good = good && length == entry.chunks && length == chunks_for(body_bytes(entry));
		entries += 1;
		chunks += length;
	});
	for (const Queue &queue : header_->queues)
	{
		uint64_t in_queue = 0;
		uint64_t of_queue = 0;

		for (uint32_t n = queue.newest; n != kNone && in_queue <= entries; n = at(n).older)
		{
			in_queue += 1;
			of_queue += at(n).chunks;
			good = good && (at(n).older != kNone || queue.oldest == n);
		}
		good = good && in_queue == queue.entries && of_queue == queue.chunks;
		queued += in_queue;
	}
	for (uint32_t c = header_->free_head; c != kNone && free <= header_->chunk_count;
	     c = chunks_[c].next)
		++free;
	return good && entries == header_->counters.entries && queued == entries &&
	       chunks == header_->counters.used_chunks && chunks + free == header_->untouched &&
	       header_->untouched <= header_->chunk_count;
}

} /* namespace cache_ext::tier */
