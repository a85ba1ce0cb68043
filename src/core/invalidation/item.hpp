/*-------------------------------------------------------------------------
 *
 * item.hpp
 *		Items as bytes: in a transaction's journal and in outbox rows.
 *
 * An item is its kind, one byte, the length of its body, and the body.  Numbers
 * are written seven bits a byte, low ones first, the highest bit set on all but
 * the last.  Plain functions over plain memory: the journal uses them where
 * no C++ object may live.
 *
 *	key, session, tag, pattern, tag pattern	the name
 *	publish								length of the channel, channel, message
 *	set									flags, ttl in ms, length of the key, key,
 *										number of tags, each with its length, value
 *	tag set, tag set pattern			prefix, 0x1f, tag
 *	repeat								after how many ms, kind, name
 *	clear, lapse						nothing
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace cache_ext::invalidation {

enum class ItemKind : char
{
	kKey = 'k',
	kSession = 'x', /* a session's key: whoever knows it has the session, so nobody is told */
	kTag = 't',
	kPattern = 'p',
	kTagPattern = 'T', /* every tag that matches */
	kPublish = 'c',
	kSet = 's',
	kTagSet = 'S',        /* of a target: its prefix and the tag (dialect.hpp) */
	kTagSetPattern = 'W', /* the same as patterns */
	kRepeat = 'r',        /* another item, once more after a while */
	kClear = 'e',         /* all own entries, and a new epoch */
	kLapse = 'l'          /* transactions committed without a Redis to tell */
};

/* Must the keys of Redis be gone over for it? */
inline bool
needs_scan(ItemKind kind) noexcept
{
	return kind == ItemKind::kPattern || kind == ItemKind::kTagPattern ||
	       kind == ItemKind::kTagSetPattern;
}

constexpr size_t kMaxNumberBytes = 10;

constexpr char kSetPlain = 1;

/* Writes the number, returns the place behind it. */
inline char *
put_number(char *to, uint64_t number) noexcept
{
	while (number >= 0x80)
	{
		*to++ = static_cast<char>(number | 0x80);
		number >>= 7;
	}
	*to++ = static_cast<char>(number);
	return to;
}

inline size_t
number_bytes(uint64_t number) noexcept
{
	size_t bytes = 1;

	while (number >= 0x80)
	{
		number >>= 7;
		++bytes;
	}
	return bytes;
}

/* Takes a number off the front; false when the bytes end too early. */
inline bool
take_number(std::string_view &from, uint64_t &number) noexcept
{
	number = 0;
	for (int shift = 0; shift < 64 && !from.empty(); shift += 7)
	{
		auto byte = static_cast<unsigned char>(from.front());

		from.remove_prefix(1);
		number |= static_cast<uint64_t>(byte & 0x7f) << shift;
		if ((byte & 0x80) == 0)
			return true;
	}
	return false;
}

inline bool
take_bytes(std::string_view &from, std::string_view &bytes) noexcept
{
	uint64_t length;

	if (!take_number(from, length) || length > from.size())
		return false;
	bytes = from.substr(0, length);
	from.remove_prefix(length);
	return true;
}

/* Takes an item off the front: its kind and its body. */
inline bool
take_item(std::string_view &from, ItemKind &kind, std::string_view &body) noexcept
{
	if (from.empty())
		return false;
	kind = static_cast<ItemKind>(from.front());
	from.remove_prefix(1);
	return take_bytes(from, body);
}

/* Does one of these items remove the key of this name? */
inline bool
removes_key(std::string_view items, std::string_view name) noexcept
{
	ItemKind kind;
	std::string_view body;

	while (take_item(items, kind, body))
		if ((kind == ItemKind::kSession || kind == ItemKind::kKey) && body == name)
			return true;
	return false;
}

/* The same for many names, in ascending order. */
inline void
mark_removed(std::string_view items, const std::string_view *names, size_t count,
             bool *removed) noexcept
{
	ItemKind kind;
	std::string_view body;

	while (take_item(items, kind, body))
	{
		if (kind != ItemKind::kSession && kind != ItemKind::kKey)
			continue;

		auto found = std::lower_bound(names, names + count, body);

		if (found != names + count && *found == body)
			removed[found - names] = true;
	}
}

/* The body of a publish item; the message is what remains. */
struct PublishBody
{
	std::string_view channel;
	std::string_view message;

	bool read(std::string_view body) noexcept
	{
		if (!take_bytes(body, channel))
			return false;
		message = body;
		return true;
	}
};

/* The body of a repeat item. */
struct RepeatBody
{
	uint64_t after_ms = 0;
	ItemKind kind = ItemKind::kKey;
	std::string_view name;

	bool read(std::string_view body) noexcept
	{
		if (!take_number(body, after_ms) || body.empty())
			return false;
		kind = static_cast<ItemKind>(body.front());
		name = body.substr(1);
		return true;
	}
};

/* The body of a set item; take its tags one by one from `tags`. */
struct SetBody
{
	bool plain = false;
	uint64_t ttl_ms = 0;
	std::string_view key;
	uint64_t tag_count = 0;
	std::string_view tags; /* encoded */
	std::string_view value;

	bool read(std::string_view body) noexcept
	{
		if (body.empty())
			return false;
		plain = (body.front() & kSetPlain) != 0;
		body.remove_prefix(1);
		if (!take_number(body, ttl_ms) || !take_bytes(body, key) || !take_number(body, tag_count))
			return false;

		std::string_view rest = body;
		std::string_view tag;

		for (uint64_t i = 0; i < tag_count; ++i)
			if (!take_bytes(rest, tag))
				return false;
		tags = body.substr(0, body.size() - rest.size());
		value = rest;
		return true;
	}
};

} /* namespace cache_ext::invalidation */
