/*-------------------------------------------------------------------------
 *
 * bucket.hpp
 *		Which version key of Redis stands for which names.
 *
 * Each own entry in Redis depends on the buckets of its key, of each of its
 * tags, of its prefix and of everything.  Invalidating a name gives its bucket
 * a new version.  Two names in one bucket only cost each other misses.
 *
 * The numbering is part of what lies in Redis: applications and other servers
 * compute it too, so it never changes.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace cache_ext::invalidation {

constexpr uint32_t kBucketCount = 16384;

/* The memory tier divides names finer; what is in one fine bucket is in one bucket. */
constexpr uint32_t kFineBucketCount = 65536;
static_assert(kFineBucketCount % kBucketCount == 0);

/* The longest key, tag, pattern or channel, in bytes and without the key prefix. */
constexpr size_t kMaxNameBytes = 8192;

/* What the keys of sessions begin with: whoever knows the rest has the session. */
constexpr std::string_view kSessionPrefix = "sess:";

enum class NameKind : char
{
	kKey = 'k',
	kTag = 't',
	kPrefix = 'p',
	kAll = 'a'
};

/*
 * FNV-1a (64 bits) over the kind's letter, a colon and the name; the upper half
 * folded onto the lower by exclusive or; the lowest 16 bits of that.
 */
constexpr uint32_t
fine_bucket_of(NameKind kind, std::string_view name) noexcept
{
	uint64_t hash = 0xcbf29ce484222325ULL;
	auto add = [&hash](char c) {
		hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
	};

	add(static_cast<char>(kind));
	add(':');
	for (char c : name)
		add(c);
	return static_cast<uint32_t>((hash ^ hash >> 32) % kFineBucketCount);
}

/* The lowest 14 bits of that. */
constexpr uint32_t
bucket_of(NameKind kind, std::string_view name) noexcept
{
	return fine_bucket_of(kind, name) % kBucketCount;
}

/* The bucket that every entry has: a change of it voids them all. */
constexpr uint32_t kFineBucketOfAll = fine_bucket_of(NameKind::kAll, {});
constexpr uint32_t kBucketOfAll = bucket_of(NameKind::kAll, {});

/*
 * The prefix of a key: what stands before its first colon.  A key without a
 * colon has none (data() is null); one that begins with a colon has the empty one.
 */
constexpr std::string_view
prefix_of(std::string_view key) noexcept
{
	size_t colon = key.find(':');

	return colon == std::string_view::npos ? std::string_view() : key.substr(0, colon);
}

constexpr bool
has_prefix(std::string_view key) noexcept
{
	return key.find(':') != std::string_view::npos;
}

/* Where subscribers are told what has been invalidated, behind the configured key_prefix. */
constexpr std::string_view kEventsChannel = "invalidate";

/* Names in Redis: version keys and the floor (key_prefix as configured, may be empty). */
std::string version_key(std::string_view key_prefix, uint32_t bucket);
std::string floor_key(std::string_view key_prefix);
std::string event_channel(std::string_view key_prefix);

} /* namespace cache_ext::invalidation */
