/*-------------------------------------------------------------------------
 *
 * hottest.hpp
 *		The names that are asked for most: choosing them, and a list of them in bytes.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/tier/store.hpp"

namespace cache_ext::tier {

struct HotName
{
	uint64_t scope;
	std::string name;
	uint64_t heat;   /* more is hotter; 0 when it is only remembered */
	int64_t seen_at; /* when it was among the hottest */
};

/* Longer names are left out. */
constexpr size_t kMaxHotName = 1024;

/* How hot an entry is: first by its uses of late, as eviction counts them, then by all its hits. */
uint64_t heat_of(const Entry &entry) noexcept;

/* Keeps the hottest of each scope that it is offered. */
class Hottest
{
  public:
	explicit Hottest(size_t per_scope) : per_scope_(per_scope) {}

	/* Is it worth the copy of its name? */
	bool wants(uint64_t scope, uint64_t heat) const;
	void add(HotName &&name);

	/* The hottest of each scope first. */
	std::vector<HotName> take();

  private:
	size_t per_scope_;
	std::map<uint64_t, std::vector<HotName>> scopes_; /* each a heap, the coolest on top */
};

/*
 * The names of now, and behind them those of before that are not among them and
 * were hot at that time or later, no more a scope than asked for.
 */
std::vector<HotName> remember(std::vector<HotName> &&now, const std::vector<HotName> &before,
                              size_t per_scope, int64_t not_before);

/* A list as it is kept over a restart. */
struct HotList
{
	uint32_t attempts =
	    0; /* starts of the server that began to load it and were not seen to end well */
	std::vector<HotName> names;
};

std::string encode(const HotList &list);

/* Nothing when the bytes are not a whole list. */
std::optional<HotList> decode_hot_list(std::string_view bytes);

} /* namespace cache_ext::tier */
