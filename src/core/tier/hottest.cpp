/*-------------------------------------------------------------------------
 *
 * hottest.cpp
 *		The names that are asked for most; see hottest.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "core/tier/hottest.hpp"

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "core/base/digest.hpp"

namespace cache_ext::tier {

/* A list begins with this and ends with the fingerprint of all before it. */
static constexpr std::string_view kMagic = "cache_ext hot 1\n";

static bool
is_hotter(const HotName &one, const HotName &other)
{
	return one.heat != other.heat ? one.heat > other.heat : one.name < other.name;
}

uint64_t
heat_of(const Entry &entry) noexcept
{
	return uint64_t{entry.uses.load(std::memory_order_relaxed)} << 32 |
	       entry.hits.load(std::memory_order_relaxed);
}

bool
Hottest::wants(uint64_t scope, uint64_t heat) const
{
	auto found = scopes_.find(scope);

	return found == scopes_.end() || found->second.size() < per_scope_ ||
	       heat > found->second.front().heat;
}

void
Hottest::add(HotName &&name)
{
	std::vector<HotName> &heap = scopes_[name.scope];

	heap.push_back(std::move(name));
	std::push_heap(heap.begin(), heap.end(), is_hotter);
	if (heap.size() <= per_scope_)
		return;
	std::pop_heap(heap.begin(), heap.end(), is_hotter);
	heap.pop_back();
}

std::vector<HotName>
Hottest::take()
{
	std::vector<HotName> all;

	for (auto &scope : scopes_)
	{
		std::sort_heap(scope.second.begin(), scope.second.end(), is_hotter);
		std::move(scope.second.begin(), scope.second.end(), std::back_inserter(all));
	}
	scopes_.clear();
	return all;
}

std::vector<HotName>
remember(std::vector<HotName> &&now, const std::vector<HotName> &before, size_t per_scope,
         int64_t not_before)
{
	std::vector<HotName> all = std::move(now);
	std::set<std::pair<uint64_t, std::string>> known;
	std::map<uint64_t, size_t> counts;

	for (const HotName &name : all)
	{
		known.emplace(name.scope, name.name);
		++counts[name.scope];
	}
	for (const HotName &name : before)
	{
		if (name.seen_at < not_before || counts[name.scope] >= per_scope ||
		    !known.emplace(name.scope, name.name).second)
			continue;
		++counts[name.scope];
		all.push_back({name.scope, name.name, 0, name.seen_at});
	}
	return all;
}

template <typename T>
static void
put(std::string *bytes, T value)
{
	bytes->append(reinterpret_cast<const char *>(&value), sizeof(value));
}

template <typename T>
static bool
take(std::string_view *bytes, T *value)
{
	if (bytes->size() < sizeof(T))
		return false;
	memcpy(value, bytes->data(), sizeof(T));
	bytes->remove_prefix(sizeof(T));
	return true;
}

static std::string
fingerprint(std::string_view bytes)
{
	return Digester().add(bytes).finish().bytes();
}

std::string
encode(const HotList &list)
{
	std::string bytes(kMagic);

	put(&bytes, list.attempts);
	put(&bytes, static_cast<uint32_t>(list.names.size()));
	for (const HotName &name : list.names)
	{
		put(&bytes, name.scope);
		put(&bytes, name.seen_at);
		put(&bytes, static_cast<uint16_t>(name.name.size()));
		bytes.append(name.name);
	}
	return bytes.append(fingerprint(bytes));
}

std::optional<HotList>
decode_hot_list(std::string_view bytes)
{
	HotList list;
	uint32_t count;

	if (bytes.size() < kMagic.size() + Digest::kSize || bytes.substr(0, kMagic.size()) != kMagic)
		return std::nullopt;

	std::string_view body = bytes.substr(0, bytes.size() - Digest::kSize);

	if (fingerprint(body) != bytes.substr(body.size()))
		return std::nullopt;
	body.remove_prefix(kMagic.size());
	if (!take(&body, &list.attempts) || !take(&body, &count))
		return std::nullopt;
	for (uint32_t i = 0; i < count; ++i)
	{
		HotName name{};
		uint16_t length;

		if (!take(&body, &name.scope) || !take(&body, &name.seen_at) || !take(&body, &length) ||
		    body.size() < length)
			return std::nullopt;
		name.name = body.substr(0, length);
		body.remove_prefix(length);
		list.names.push_back(std::move(name));
	}
	return body.empty() ? std::optional<HotList>(std::move(list)) : std::nullopt;
}

} /* namespace cache_ext::tier */
