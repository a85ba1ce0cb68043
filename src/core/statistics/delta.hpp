/*-------------------------------------------------------------------------
 *
 * delta.hpp
 *		What one statement changes, netted: signed cells by encoded key.
 *
 * Keys are compared as bytes.  Two spellings of an equal value stay two
 * entries, which is harmless: readers and the fold compare by the type's own
 * equality.  A statement that changes one row, the usual case, never hashes.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cache_ext::statistics {

class Delta
{
  public:
	/*
	 * The cells of this key, zero at first, valid until the next call.  A key
	 * must always come with the same number of cells, of the same kinds:
	 * is_sum says which of them are sums, and outlives the delta's entries.
	 */
	int64_t *cells(std::string_view key, size_t count, const bool *is_sum);

	/* Calls visit(key, cells, count, is_sum) for every key, in the order of first appearance. */
	template <typename Visit> void for_each(Visit &&visit)
	{
		for (const Entry &entry : entries_)
			visit(std::string_view(keys_.data() + entry.key, entry.key_size),
			      cells_.data() + entry.cells, entry.cell_count, entry.is_sum);
	}

	size_t size() const noexcept { return entries_.size(); }

	/* Approximate memory in use. */
	size_t bytes() const noexcept
	{
		return keys_.size() + cells_.size() * sizeof(int64_t) + entries_.size() * sizeof(Entry) +
		       table_.size() * sizeof(uint32_t);
	}

	/* Empties it; keeps the memory unless a bulk statement has made it large. */
	void clear() noexcept;

  private:
	struct Entry
	{
		size_t key;
		size_t cells;
		uint32_t hash; /* once the table is in use */
		uint32_t key_size;
		uint32_t cell_count;
		const bool *is_sum;
	};

	std::string_view key_of(const Entry &entry) const noexcept
	{
		return {keys_.data() + entry.key, entry.key_size};
	}
	Entry *find_unindexed(std::string_view key) noexcept;
	Entry *find(std::string_view key, uint32_t hash) noexcept;
	void index_all();
	void index(uint32_t entry) noexcept;

	std::string keys_;
	std::vector<int64_t> cells_;
	std::vector<Entry> entries_;
	std::vector<uint32_t> table_; /* entry number + 1; open addressing; a power of two */
};

} /* namespace cache_ext::statistics */
