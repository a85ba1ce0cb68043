/*-------------------------------------------------------------------------
 *
 * tier.hpp
 *		The Redis tier: reading entries and storing fills.
 *
 * The argument why a value from here is never stale is in README.md.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/base/digest.hpp"
#include "core/invalidation/bucket.hpp"
#include "core/redis/reply.hpp"
#include "ext/cache/redis_watch.hpp"
#include "ext/invalidation/outbox.hpp"
#include "pg/server.hpp"

namespace cache_ext::cache {

/*
 * What a reader knows about the tier at one moment: may it be trusted for these
 * buckets, and under which epoch do its values stand?
 */
struct Trust
{
	bool trusted; /* no undelivered invalidation of these buckets, and the tier is open */
	invalidation::RedisState state;
	bool remembered; /* of an earlier look: the state may have changed since */
};

/* Looks at the outbox in a snapshot of now. */
Trust look_at_outbox(const std::vector<uint32> &buckets);

/* The numbers of all names that void an entry: its key's, its tags', its prefix's, that of all. */
template <typename NumberOf>
std::vector<uint32>
numbers_of_names(std::string_view key, const std::vector<std::string_view> &tags,
                 NumberOf number_of, uint32 number_of_all)
{
	using invalidation::NameKind;
	std::vector<uint32> numbers;

	numbers.reserve(tags.size() + 3);
	numbers.push_back(number_of(NameKind::kKey, key));
	for (std::string_view tag : tags)
		numbers.push_back(number_of(NameKind::kTag, tag));
	if (invalidation::has_prefix(key))
		numbers.push_back(number_of(NameKind::kPrefix, invalidation::prefix_of(key)));
	numbers.push_back(number_of_all);
	return numbers;
}

/* The buckets of an entry, ascending, each once. */
std::vector<uint32> buckets_of(std::string_view key, const std::vector<std::string_view> &tags);

/* What an entry stored now would be stored under. */
struct Seen
{
	uint64 connection = 0; /* 0: nothing has been seen */
	uint64 epoch = 0;
	Digest incarnation{0, 0};
	Digest versions{0, 0};
	std::vector<uint32> buckets;
};

/* How old an entry is and what becomes of it; times in milliseconds. */
struct Age
{
	int64 made_at = 0;  /* since 1970, 0: not known */
	int64 fresh_ms = 0; /* may be given for so long from then, 0: as long as it is there */
	int64 left_ms = 0;  /* until Redis drops it, -1: never; only when asked for */
};

/* A read of one key; owns the bytes that it returns. */
struct Lookup
{
	enum class Outcome
	{
		kMiss,
		kHit,
		kStale,      /* never invalidated, but over: to be given while its source fails */
		kUnavailable /* the tier cannot be used now, neither read nor filled */
	};

	Outcome outcome = Outcome::kMiss;
	redis::Reply storage;
	size_t value_at = 0; /* where in the storage the value begins: a place that survives moves */
	bool bare = false;   /* without envelope */
	Age age;

	/* Of kHit and kStale; valid as long as the lookup stays where it is. */
	std::string_view value() const { return std::string_view(storage.text).substr(value_at); }

	bool hit() const { return outcome == Outcome::kHit; }

	/* The entry's tags, valid as value() is. */
	std::vector<std::string_view> tags() const;

	Seen seen; /* the versions that came with it, if all were there */
};

Lookup look_up(std::string_view key, const std::vector<std::string_view> &tags);

/*
 * Many keys in one round trip, in their order; a second one is needed only for
 * entries that turn out to have tags.  with_left: also what is left of their lives.
 */
std::vector<Lookup> look_up_many(const std::vector<std::string_view> &keys, bool with_left);

/* For how long a value is stored, and for whom. */
struct Storing
{
	int64 ttl_ms = 0;   /* to be given for so long */
	int64 stale_ms = 0; /* and kept so much longer, for when its source fails */
	Digest audience{0, 0};
	bool by_settings = false;
};

/*
 * A fill under way.  Begun before the query's snapshot is taken, it remembers
 * the versions of then; finished after the query, it stores the value under
 * them.  A fill that cannot be made is silently none: the query has answered.
 */
class Fill
{
  public:
	Fill(std::string_view key, const std::vector<std::string_view> &tags, bool plain);

	/*
	 * Takes the versions that the lookup saw, or reads them.  False: nothing can
	 * be stored, do not finish.
	 */
	bool begin(Seen &&seen);

	/* Called once the query's snapshot is there. */
	void note_snapshot();

	/* Returns whether it was stored. */
	bool finish(std::string_view value, const Storing &how);

	/* The value as it would be stored; only after begin() and not for a bare one. */
	std::string sealed(std::string_view value, const Storing &how) const;

	/* The connection that the versions came from. */
	uint64 connection() const { return seen_.connection; }

  private:
	bool begin_plain(const Trust &trust);
	bool begin_envelope(const Trust &trust);
	void make_durable() const;

	std::string_view key_;
	const std::vector<std::string_view> &tags_;
	bool plain_;
	std::vector<uint32> buckets_;
	std::string redis_key_;
	Seen seen_;
	RedisWatch watch_;
	uint64 visible_end_ = 0; /* end of the log records of all that the snapshot sees */
};

} /* namespace cache_ext::cache */
