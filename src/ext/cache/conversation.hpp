/*-------------------------------------------------------------------------
 *
 * conversation.hpp
 *		What the files of the Redis tier say to Redis, and what silence means.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/redis/connection.hpp"
#include "ext/cache/tier.hpp"
#include "pg/redis_link.hpp"

namespace cache_ext::cache {

/*
 * The replies, or nullopt when Redis is away: the link has logged that, and the
 * query answers.  A query cancel is no silence and travels on.
 */
std::optional<std::vector<redis::Reply>>
ask(const redis::Request &request, pg::RedisServer *server = nullptr, uint64 only_connection = 0);

/* Within its life Redis is given no more than these milliseconds an answer; 0: as the settings say.
 */
class PatienceForRedis
{
  public:
	explicit PatienceForRedis(int64 ms) noexcept;
	~PatienceForRedis();
	PatienceForRedis(const PatienceForRedis &) = delete;
	PatienceForRedis &operator=(const PatienceForRedis &) = delete;

  private:
	int before_;
};

/* Is there an error among them?  The first goes to the log. */
bool note_first_refusal(const std::vector<redis::Reply> &replies);

/*
 * Is this where all deliveries are known to?  If not, versions and values here
 * may have missed invalidations; the worker is woken to adopt the place.
 */
bool knows_deliveries(const invalidation::RedisState &state, const pg::RedisServer &server);

/* The version keys of the buckets, appended. */
void add_version_keys(std::vector<std::string> *names, const std::vector<uint32> &buckets);

redis::Request mget(const std::vector<std::string> &names);

/* The fingerprint of the versions in the reply from the given element on, if all are there. */
std::optional<Digest> digest_versions(const redis::Reply &reply, size_t first,
                                      const std::vector<uint32> &buckets);

} /* namespace cache_ext::cache */
