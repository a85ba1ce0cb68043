/*-------------------------------------------------------------------------
 *
 * conversation.cpp
 *		What the files of the Redis tier say to Redis; see conversation.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include <algorithm>

#include "core/cache/envelope.hpp"
#include "core/invalidation/bucket.hpp"
#include "ext/cache/conversation.hpp"
#include "ext/worker.hpp"
#include "pg/guard.hpp"
#include "pg/redis_link.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "access/xlog.h"
}

namespace cache_ext::cache {

using redis::Reply;

bool
note_first_refusal(const std::vector<Reply> &replies)
{
	for (const Reply &reply : replies)
		if (reply.is_error())
		{
			pg::redis_note_refusal(reply);
			return true;
		}
	return false;
}

static int patience_ms = 0;

PatienceForRedis::PatienceForRedis(int64 ms) noexcept : before_(patience_ms)
{
	if (ms > 0)
		patience_ms = static_cast<int>(std::min<int64>(ms, pg::command_timeout_ms));
}

PatienceForRedis::~PatienceForRedis()
{
	patience_ms = before_;
}

/*
 * The replies, or nullopt when Redis is away: the link has logged that, and the
 * query answers.  A query cancel is no silence and travels on.
 */
std::optional<std::vector<Reply>>
ask(const redis::Request &request, pg::RedisServer *server, uint64 only_connection)
{
	pg::ExchangeOptions options;

	options.only_connection = only_connection;
	options.timeout_ms = patience_ms;
	try
	{
		return pg::redis_exchange(request, options, server);
	}
	catch (const Error &)
	{
		return std::nullopt;
	}
}

/*
 * Is this where all deliveries are known to?  If not, versions and values here
 * may have missed invalidations: Redis has restarted with older data, or another
 * address or prefix is in use than the worker's.  The worker adopts the new
 * place, repeats what may have been lost and raises the epoch.  Before the first
 * delivery there is nothing to have missed.
 */
bool
knows_deliveries(const invalidation::RedisState &state, const pg::RedisServer &server)
{
	if (!state.has_incarnation || state.incarnation == server.incarnation)
		return true;
	pg::call([] {
		if (!RecoveryInProgress())
			worker::wake();
	});
	return false;
}

void
add_version_keys(std::vector<std::string> *names, const std::vector<uint32> &buckets)
{
	std::string_view prefix = pg::key_prefix != nullptr ? pg::key_prefix : "";

	for (uint32 bucket : buckets)
		names->push_back(invalidation::version_key(prefix, bucket));
}

redis::Request
mget(const std::vector<std::string> &names)
{
	std::vector<std::string_view> arguments{"MGET"};
	redis::Request request;

	arguments.reserve(1 + names.size());
	arguments.insert(arguments.end(), names.begin(), names.end());
	request.add(arguments);
	return request;
}

/* The fingerprint of the versions in the reply from the given element on, if all are there. */
std::optional<Digest>
digest_versions(const Reply &reply, size_t first, const std::vector<uint32> &buckets)
{
	VersionDigester digester;

	for (size_t i = 0; i < buckets.size(); ++i)
	{
		const Reply &version = reply.elements[first + i];

		if (!version.is_string())
			return std::nullopt;
		digester.add(buckets[i], version.text);
	}
	return digester.finish();
}

} /* namespace cache_ext::cache */
