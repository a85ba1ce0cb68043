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
#include "core/redis/reply.hpp"
#include "pg/server.hpp"

namespace cache_ext::cache {

/*
 * What a reader knows about the tier at one moment: may it be trusted for these
 * buckets, and under which epoch do its values stand?
 */
struct Trust
{
	bool trusted; /* no undelivered invalidation of these buckets, and the tier is open */
	uint64 epoch;
	bool has_incarnation;
	Digest incarnation; /* the server that all deliveries so far are known to */
};

/* Looks at the outbox in a snapshot of now. */
Trust look_at_outbox(const std::vector<uint32> &buckets);

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

/* A read of one key; owns the bytes that it returns. */
struct Lookup
{
	enum class Outcome
	{
		kMiss,
		kHit,
		kUnavailable /* the tier cannot be used now, neither read nor filled */
	};

	Outcome outcome = Outcome::kMiss;
	redis::Reply storage;
	size_t value_at = 0; /* where in the storage the value begins: a place that survives moves */

	/* Of kHit; valid as long as the lookup stays where it is. */
	std::string_view value() const { return std::string_view(storage.text).substr(value_at); }

	Seen seen; /* the versions that came with it, if all were there */
};

Lookup look_up(std::string_view key, const std::vector<std::string_view> &tags);

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

	void finish(std::string_view value, int64 ttl_ms, bool by_settings);

  private:
	bool begin_plain(const Trust &trust);
	bool begin_envelope(const Trust &trust);
	void make_durable() const;
	std::string envelope(std::string_view value, bool by_settings) const;

	std::string_view key_;
	const std::vector<std::string_view> &tags_;
	bool plain_;
	std::vector<uint32> buckets_;
	std::string redis_key_;
	Seen seen_;
	uint64 watch_ = 0;
	uint64 visible_end_ = 0; /* end of the log records of all that the snapshot sees */
};

} /* namespace cache_ext::cache */
