/*-------------------------------------------------------------------------
 *
 * envelope.hpp
 *		The bytes around an own value in Redis.
 *
 * They say under which circumstances the value was made; the reader compares
 * and believes only what still holds.  Layout: README.md beside this file.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/digest.hpp"

namespace cache_ext::cache {

/* A version key's value: 16 random bytes. */
constexpr size_t kNonceSize = 16;

/* All that must be unchanged for a value to be believed. */
struct Token
{
	Digest name_space;  /* digest_namespace() */
	Digest incarnation; /* digest_incarnation() of where the nonces were read from */
	Digest versions;    /* digest_versions() */
};

struct Envelope
{
	Token token;
	Digest audience;      /* kEverybody, or whose query made the value */
	bool by_settings;     /* the audience covers the session's own settings too */
	uint64_t made_at;     /* milliseconds since 1970, 0: not said */
	uint64_t fresh_ms;    /* how long it may be given; 0: as long as Redis keeps it */
	std::string_view key; /* with the prefix: exactly the name in Redis */
	std::vector<std::string_view> tags;
	std::string_view payload;
};

/* The audience of values that belong to no role: what cache_set stored. */
constexpr Digest kEverybody{0, 0};

constexpr size_t kMaxTags = 0xffff;

/* At most kMaxTags tags of at most 65,535 bytes; throws Error(22023) beyond. */
std::string encode(const Envelope &envelope);

/* The payload stays in bytes: the result's views point into them.  nullopt: no envelope of ours. */
std::optional<Envelope> decode(std::string_view bytes);

/* Does it begin as an envelope does, whether readable or not? */
bool looks_like_envelope(std::string_view bytes) noexcept;

/*
 * What stands above every value of one database: a value from before a
 * fail-over (timeline), of another cluster, or of an earlier epoch is void.
 */
Digest digest_namespace(uint64_t system_identifier, uint32_t timeline, uint32_t database,
                        uint32_t bucket_count, uint64_t epoch) noexcept;

/*
 * One life of a Redis server.  Both parts are needed: run_id survives demote
 * and promote, master_replid a restart with its file.
 */
Digest digest_instance(std::string_view run_id, std::string_view master_replid) noexcept;

/*
 * One life of the names that we use there: invalidations that went to another
 * server, to another of its databases or under another prefix say nothing here.
 */
Digest digest_incarnation(const Digest &instance, uint32_t redis_database,
                          std::string_view key_prefix) noexcept;

/*
 * Fingerprint of the nonces of an entry's buckets, in ascending order of the
 * bucket numbers, each bucket once: feed number and nonce alternately.
 */
class VersionDigester
{
  public:
	VersionDigester &add(uint32_t bucket, std::string_view nonce) noexcept
	{
		digester_.add(uint64_t{bucket}).add(uint64_t{nonce.size()}).add(nonce);
		return *this;
	}
	Digest finish() const noexcept { return digester_.finish(); }

  private:
	Digester digester_;
};

} /* namespace cache_ext::cache */
