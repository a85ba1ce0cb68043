/*-------------------------------------------------------------------------
 *
 * look_up.cpp
 *		The Redis tier: reading entries; see tier.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include <algorithm>
#include <optional>

#include "core/cache/envelope.hpp"
#include "core/invalidation/bucket.hpp"
#include "ext/cache/audience.hpp"
#include "ext/cache/cache.hpp"
#include "ext/cache/conversation.hpp"
#include "ext/cache/tier.hpp"
#include "ext/invalidation/outbox.hpp"
#include "pg/guard.hpp"

extern "C" {
#include "mb/pg_wchar.h"
#include "utils/snapmgr.h"
}

namespace cache_ext::cache {

using redis::Reply;

std::vector<uint32>
buckets_of(std::string_view key, const std::vector<std::string_view> &tags)
{
	using invalidation::bucket_of;
	using invalidation::NameKind;
	std::vector<uint32> buckets;

	buckets.reserve(tags.size() + 3);
	buckets.push_back(bucket_of(NameKind::kKey, key));
	for (std::string_view tag : tags)
		buckets.push_back(bucket_of(NameKind::kTag, tag));
	if (invalidation::has_prefix(key))
		buckets.push_back(bucket_of(NameKind::kPrefix, invalidation::prefix_of(key)));
	buckets.push_back(invalidation::kBucketOfAll);
	std::sort(buckets.begin(), buckets.end());
	buckets.erase(std::unique(buckets.begin(), buckets.end()), buckets.end());
	return buckets;
}

Trust
look_at_outbox(const std::vector<uint32> &buckets)
{
	const uint32 *numbers = buckets.data();
	int count = static_cast<int>(buckets.size());
	Trust trust{};

	pg::call([&] {
		/* Pushed, not only taken: catalog access below may take snapshots of its own. */
		PushActiveSnapshot(GetLatestSnapshot());
		trust.trusted = !invalidation::outbox_pending(numbers, count, GetActiveSnapshot());
		if (trust.trusted)
		{
			invalidation::RedisState state = invalidation::read_redis_state(GetActiveSnapshot());

			trust.epoch = state.epoch;
			trust.has_incarnation = state.has_incarnation;
			trust.incarnation = state.incarnation;
		}
		PopActiveSnapshot();
	});
	return trust;
}

/* -------------------------------------------------------------------------
 * Reading
 * -------------------------------------------------------------------------
 */

static bool
is_valid_text(std::string_view bytes)
{
	return bytes.find('\0') == std::string_view::npos &&
	       pg_verify_mbstr(GetDatabaseEncoding(), bytes.data(), static_cast<int>(bytes.size()),
	                       true);
}

static bool
is_for_us(const Envelope &envelope)
{
	return envelope.audience == kEverybody ||
	       envelope.audience == current_audience(envelope.by_settings);
}

/* One look at the key with the buckets that these tags give. */
struct Attempt
{
	Lookup lookup;
	bool other_tags = false; /* the entry has tags that were not looked at */
};

static Lookup
unavailable()
{
	Lookup lookup;

	lookup.outcome = Lookup::Outcome::kUnavailable;
	return lookup;
}

/* A value without envelope: another application's, or stored for one. */
static void
judge_bare(Attempt *attempt)
{
	std::string_view bytes = attempt->lookup.storage.text;

	if (!is_valid_text(bytes))
	{
		pg::call([&] {
			ereport(DEBUG1, (errmsg_internal("a value in Redis is not text in the database's "
			                                 "encoding")));
		});
		return;
	}
	attempt->lookup.outcome = Lookup::Outcome::kHit;
}

static void
judge_envelope(const Envelope &envelope, const Trust &trust, const pg::RedisServer &server,
               const std::optional<Digest> &versions, const std::vector<uint32> &buckets,
               std::string_view key, Attempt *attempt)
{
	if (envelope.key != full_key(key))
		return;
	if (envelope.token.name_space != current_namespace(trust.epoch) ||
	    envelope.token.incarnation != server.incarnation || !is_for_us(envelope))
		return;
	if (buckets_of(key, envelope.tags) != buckets)
	{
		attempt->other_tags = true;
		return;
	}
	if (!versions || envelope.token.versions != *versions || !is_valid_text(envelope.payload))
		return;
	/* The payload is the envelope's last part. */
	attempt->lookup.value_at = attempt->lookup.storage.text.size() - envelope.payload.size();
	attempt->lookup.outcome = Lookup::Outcome::kHit;
}

static Attempt
attempt(std::string_view key, const std::vector<uint32> &buckets)
{
	Attempt result;
	Trust trust = look_at_outbox(buckets);

	if (!trust.trusted)
	{
		result.lookup = unavailable();
		return result;
	}

	std::vector<std::string> names{full_key(key)};
	pg::RedisServer server;

	add_version_keys(&names, buckets);

	auto replies = ask(mget(names), &server);

	if (!replies || !server.identified || !knows_deliveries(trust, server))
	{
		result.lookup = unavailable();
		return result;
	}

	Reply &reply = replies->front();

	if (!reply.is_array() || reply.elements.size() != names.size())
	{
		if (reply.is_error())
			note_refusal(reply);
		else
			pg::redis_disconnect();
		result.lookup = unavailable();
		return result;
	}

	std::optional<Digest> versions = digest_versions(reply, 1, buckets);

	if (versions)
		result.lookup.seen = {server.connection, trust.epoch, server.incarnation, *versions,
		                      buckets};
	if (!reply.elements[0].is_string())
		return result;

	/* The envelope's views point into the storage where it is now. */
	result.lookup.storage = std::move(reply.elements[0]);
	if (auto envelope = decode(result.lookup.storage.text))
		judge_envelope(*envelope, trust, server, versions, buckets, key, &result);
	else if (!looks_like_envelope(result.lookup.storage.text))
		judge_bare(&result);
	return result;
}

/*
 * The entry itself says which tags it has.  When those are not the ones asked
 * for, everything starts again with the entry's list, the look at the outbox
 * included, because that must come before the versions are read.
 */
Lookup
look_up(std::string_view key, const std::vector<std::string_view> &tags)
{
	Attempt first = attempt(key, buckets_of(key, tags));

	if (!first.other_tags)
		return std::move(first.lookup);

	auto envelope = decode(first.lookup.storage.text);
	Attempt second = attempt(key, buckets_of(key, envelope->tags));

	return std::move(second.lookup);
}

} /* namespace cache_ext::cache */
