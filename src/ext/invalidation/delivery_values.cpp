/*-------------------------------------------------------------------------
 *
 * delivery_values.cpp
 *		Values of cache_set, on their way to Redis.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/delivery_steps.hpp"

#include <set>

#include "core/cache/envelope.hpp"
#include "core/invalidation/bucket.hpp"
#include "ext/cache/cache.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "access/transam.h"
}

namespace cache_ext::invalidation {

using redis::Reply;
using redis::Request;

/* Buckets of an entry, ascending. */
static std::set<uint32>
entry_buckets(const SetBody &entry)
{
	std::set<uint32> buckets = {bucket_of(NameKind::kKey, entry.key), kBucketOfAll};
	std::string_view tags = entry.tags;
	std::string_view tag;

	if (has_prefix(entry.key))
		buckets.insert(bucket_of(NameKind::kPrefix, prefix_of(entry.key)));
	while (take_bytes(tags, tag))
		buckets.insert(bucket_of(NameKind::kTag, tag));
	return buckets;
}

void
Delivery::send_values(const Channel &channel, const Plan &plan, const RedisState &state,
                      const Versions &fresh)
{
	Digest name_space = cache::current_namespace(state.epoch);
	std::string prefix = pg::key_prefix;

	for (const Value &value : plan.values)
	{
		std::set<uint32> buckets = entry_buckets(value.body);
		bool alone = TransactionIdIsNormal(value.xmin);

		for (uint32 bucket : buckets)
			alone = alone && !plan.touched_by_others(bucket, value.xmin);
		if (!alone)
			continue;

		/* Versions that this batch has not made are those of now, made when absent. */
		std::map<uint32, std::string> versions;
		std::vector<uint32> asked;
		Request request;

		for (uint32 bucket : buckets)
		{
			std::string_view known = fresh.find(bucket);

			if (!known.empty())
			{
				versions[bucket] = known;
				continue;
			}

			std::string name = version_key(prefix, bucket);

			request.add({"SET", name, cache::fresh_nonce(), "NX"});
			request.add({"GET", name});
			asked.push_back(bucket);
		}

		std::vector<Reply> replies = channel.run(request);
		bool complete = true;

		for (size_t i = 0; i < asked.size(); ++i)
		{
			complete = complete && replies[2 * i + 1].is_string();
			versions[asked[i]] = replies[2 * i + 1].text;
		}
		if (!complete)
			continue;

		int64 ttl_ms = cache::jittered_ttl_ms(static_cast<int64>(value.body.ttl_ms));
		std::string key = cache::full_key(value.body.key);
		std::string bytes(value.body.value);

		if (!value.body.plain)
		{
			cache::VersionDigester digester;
			cache::Envelope envelope = {};
			std::string_view tags = value.body.tags;
			std::string_view tag;

			for (const auto &[bucket, nonce] : versions)
				digester.add(bucket, nonce);
			envelope.token = {name_space, channel.server().incarnation, digester.finish()};
			envelope.audience = cache::kEverybody;
			envelope.made_at = static_cast<uint64>(cache::now_ms());
			envelope.fresh_ms = static_cast<uint64>(ttl_ms);
			envelope.key = key;
			while (take_bytes(tags, tag))
				envelope.tags.push_back(tag);
			envelope.payload = value.body.value;
			bytes = cache::encode(envelope);
		}

		Request set;

		set.add({"SET", key, bytes, "PX", std::to_string(ttl_ms)});
		for (const Reply &reply : channel.run(set))
			if (!(reply.is_error() && begins_with(reply.text, "OOM"))) /* best effort */
				expect_good(reply);
	}
}

} /* namespace cache_ext::invalidation */
