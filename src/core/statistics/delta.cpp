/*-------------------------------------------------------------------------
 *
 * delta.cpp
 *		Netting the changes of a statement; see delta.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include <cstring>

#include "core/statistics/delta.hpp"

namespace cache_ext::statistics {

/* Up to this many entries a scan beats a hash table. */
constexpr size_t kUnindexed = 8;

/* A buffer larger than this is given back after its statement. */
constexpr size_t kKeptBytes = 256 * 1024;

/* Eight bytes at a time with a multiplicative mix; quality matters little, speed does. */
static uint32_t
hash_bytes(std::string_view bytes) noexcept
{
	uint64_t hash = 0x9e3779b97f4a7c15ULL ^ bytes.size();
	const char *at = bytes.data();
	size_t left = bytes.size();

	while (left > 0)
	{
		uint64_t word = 0;
		size_t take = left < sizeof(word) ? left : sizeof(word);

		std::memcpy(&word, at, take);
		hash = (hash ^ word) * 0xff51afd7ed558ccdULL;
		hash ^= hash >> 32;
		at += take;
		left -= take;
	}
	return static_cast<uint32_t>(hash);
}

Delta::Entry *
Delta::find_unindexed(std::string_view key) noexcept
{
	for (Entry &entry : entries_)
		if (key_of(entry) == key)
			return &entry;
	return nullptr;
}

Delta::Entry *
Delta::find(std::string_view key, uint32_t hash) noexcept
{
	size_t mask = table_.size() - 1;

	for (size_t at = hash & mask; table_[at] != 0; at = (at + 1) & mask)
	{
		Entry &entry = entries_[table_[at] - 1];

		if (entry.hash == hash && key_of(entry) == key)
			return &entry;
	}
	return nullptr;
}

void
Delta::index(uint32_t entry) noexcept
{
	size_t mask = table_.size() - 1;
	size_t at = entries_[entry].hash & mask;

	while (table_[at] != 0)
		at = (at + 1) & mask;
	table_[at] = entry + 1;
}

void
Delta::index_all()
{
	size_t size = 4 * kUnindexed;

	if (table_.empty())
		for (Entry &entry : entries_)
			entry.hash = hash_bytes(key_of(entry));
	while (size < 4 * entries_.size())
		size *= 2;
	table_.assign(size, 0);
	for (uint32_t entry = 0; entry < entries_.size(); ++entry)
		index(entry);
}

int64_t *
Delta::cells(std::string_view key, size_t count, const bool *is_sum)
{
	bool indexed = !table_.empty();
	uint32_t hash = indexed ? hash_bytes(key) : 0;

	if (Entry *found = indexed ? find(key, hash) : find_unindexed(key))
		return cells_.data() + found->cells;

	Entry fresh{keys_.size(),
	            cells_.size(),
	            hash,
	            static_cast<uint32_t>(key.size()),
	            static_cast<uint32_t>(count),
	            is_sum};

	keys_.append(key);
	cells_.resize(cells_.size() + count);
	entries_.push_back(fresh);
	if (indexed && entries_.size() * 2 <= table_.size())
		index(static_cast<uint32_t>(entries_.size() - 1));
	else if (entries_.size() > kUnindexed)
		index_all();
	return cells_.data() + fresh.cells;
}

void
Delta::clear() noexcept
{
	if (bytes() > kKeptBytes)
	{
		*this = Delta();
		return;
	}
	keys_.clear();
	cells_.clear();
	entries_.clear();
	table_.clear();
}

} /* namespace cache_ext::statistics */
