/*-------------------------------------------------------------------------
 *
 * tier.cpp
 *		The Redis tier: reading entries and storing fills; see tier.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include <algorithm>
#include <optional>

#include "core/cache/envelope.hpp"
#include "core/invalidation/bucket.hpp"
#include "core/redis/connection.hpp"
#include "ext/cache/audience.hpp"
#include "ext/cache/cache.hpp"
#include "ext/cache/tier.hpp"
#include "ext/invalidation/outbox.hpp"
#include "ext/worker.hpp"
#include "pg/guard.hpp"
#include "pg/redis_link.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "mb/pg_wchar.h"
#include "utils/snapmgr.h"
}

namespace cache_ext::cache {

using redis::Reply;

/*
 * A connection has one set of watched keys.  Each WATCH and each end of one
 * gets a number, so that a fill whose watch somebody else has ended (a nested
 * cache_get in its query) knows that it is no longer guarded.
 */
static uint64 last_watch = 0;
static bool watching = false;

/* -------------------------------------------------------------------------
 * Talking to Redis, where silence is an answer
 * -------------------------------------------------------------------------
 */

/* The first word of the last error that Redis has answered and the log has told; empty: none. */
static char last_refusal[64] = "";

/* An error that Redis answers is told once until another or a success follows, not once a call. */
static void
note_refusal(const Reply &reply)
{
	std::string text = redis::readable(reply.text);
	std::string kind = text.substr(0, text.find(' ')).substr(0, sizeof(last_refusal) - 1);

	/* The server behind the name may have changed, or wants us to log in again. */
	if (kind == "READONLY" || kind == "NOAUTH")
		pg::redis_disconnect();
	if (kind == last_refusal)
		return;
	strlcpy(last_refusal, kind.c_str(), sizeof(last_refusal));

	std::string name = pg::redis_name();

	pg::call([&] {
		ereport(LOG, (errmsg("Redis server \"%s\" refuses a command of the cache: %s", name.c_str(),
		                     text.c_str()),
		              errhint("Queries answer meanwhile."), errhidestmt(true)));
	});
}

static bool
note_first_refusal(const std::vector<Reply> &replies)
{
	for (const Reply &reply : replies)
		if (reply.is_error())
		{
			note_refusal(reply);
			return true;
		}
	return false;
}

/*
 * The replies, or nullopt when Redis is away: the link has logged that, and the
 * query answers.  A query cancel is no silence and travels on.
 */
static std::optional<std::vector<Reply>>
ask(const redis::Request &request, pg::RedisServer *server, uint64 only_connection = 0)
{
	pg::ExchangeOptions options;

	options.only_connection = only_connection;
	try
	{
		return pg::redis_exchange(request, options, server);
	}
	catch (const Error &)
	{
		return std::nullopt;
	}
}

/* -------------------------------------------------------------------------
 * Trust
 * -------------------------------------------------------------------------
 */

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

/*
 * Is this where all deliveries are known to?  If not, versions and values here
 * may have missed invalidations: Redis has restarted with older data, or another
 * address or prefix is in use than the worker's.  The worker adopts the new
 * place, repeats what may have been lost and raises the epoch.  Before the first
 * delivery there is nothing to have missed.
 */
static bool
knows_deliveries(const Trust &trust, const pg::RedisServer &server)
{
	if (!trust.has_incarnation || trust.incarnation == server.incarnation)
		return true;
	pg::call([] {
		if (!RecoveryInProgress())
			worker::wake();
	});
	return false;
}

/* -------------------------------------------------------------------------
 * Reading
 * -------------------------------------------------------------------------
 */

static void
add_version_keys(std::vector<std::string> *names, const std::vector<uint32> &buckets)
{
	std::string_view prefix = pg::key_prefix != nullptr ? pg::key_prefix : "";

	for (uint32 bucket : buckets)
		names->push_back(invalidation::version_key(prefix, bucket));
}

static redis::Request
mget(const std::vector<std::string> &names)
{
	std::vector<std::string_view> arguments{"MGET"};
	redis::Request request;

	arguments.insert(arguments.end(), names.begin(), names.end());
	request.add(arguments);
	return request;
}

/* The fingerprint of the versions in the reply from the given element on, if all are there. */
static std::optional<Digest>
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

/* -------------------------------------------------------------------------
 * Storing
 * -------------------------------------------------------------------------
 */

Fill::Fill(std::string_view key, const std::vector<std::string_view> &tags, bool plain)
    : key_(key), tags_(tags), plain_(plain), buckets_(buckets_of(key, tags)),
      redis_key_(full_key(key))
{
}

bool
Fill::begin(Seen &&seen)
{
	if (!plain_ && seen.connection != 0 && seen.buckets == buckets_)
	{
		seen_ = std::move(seen);
		return true;
	}

	Trust trust = look_at_outbox(buckets_);

	/* What is stored now would be void at the delivery: not worth a round trip. */
	if (!trust.trusted)
		return false;
	return plain_ ? begin_plain(trust) : begin_envelope(trust);
}

/*
 * Read the versions, creating those that are absent.  One pipeline: SET NX
 * leaves a version alone that another process has created meanwhile, and the
 * MGET behind it reads whichever won.
 */
bool
Fill::begin_envelope(const Trust &trust)
{
	std::vector<std::string> names;
	pg::RedisServer server;

	add_version_keys(&names, buckets_);

	auto replies = ask(mget(names), &server);

	for (int round = 0; replies && round < 2; ++round)
	{
		const Reply &versions = replies->back();

		(void) note_first_refusal(*replies);
		if (!server.identified || !knows_deliveries(trust, server) || !versions.is_array() ||
		    versions.elements.size() != names.size())
			return false;
		if (auto digest = digest_versions(versions, 0, buckets_))
		{
			seen_ = {server.connection, trust.epoch, server.incarnation, *digest, {}};
			return true;
		}

		redis::Request create;

		for (size_t i = 0; i < names.size(); ++i)
			if (!versions.elements[i].is_string())
				create.add({"SET", names[i], fresh_nonce(), "NX"});

		std::vector<std::string_view> again{"MGET"};

		again.insert(again.end(), names.begin(), names.end());
		create.add(again);
		replies = ask(create, &server);
	}
	return false;
}

/*
 * A bare value carries no versions, so Redis compares them: the keys are
 * watched from before the snapshot, and EXEC does nothing when one has changed,
 * vanished or appeared.
 */
bool
Fill::begin_plain(const Trust &trust)
{
	std::vector<std::string> names;
	std::vector<std::string_view> arguments{"WATCH"};
	redis::Request request;
	pg::RedisServer server;

	add_version_keys(&names, buckets_);
	arguments.insert(arguments.end(), names.begin(), names.end());
	if (watching)
		request.add({"UNWATCH"});
	request.add(arguments);

	auto replies = ask(request, &server);

	watching = false;
	watch_ = ++last_watch;
	if (!replies)
		return false;
	if (!replies->back().is_ok())
	{
		note_refusal(replies->back());
		return false;
	}
	watching = true;
	seen_.connection = server.connection;
	return server.identified && knows_deliveries(trust, server);
}

/*
 * Where the log ends now.  At the start of a page the insert position already
 * stands behind the page's header, where no record ends yet.
 */
static XLogRecPtr
end_of_log()
{
	XLogRecPtr position = GetXLogInsertRecPtr();
	uint64 in_page = position % XLOG_BLCKSZ;
	uint64 in_segment = XLogSegmentOffset(position, wal_segment_size);

	if (in_segment == SizeOfXLogLongPHD)
		return position - SizeOfXLogLongPHD;
	if (in_page == SizeOfXLogShortPHD)
		return position - SizeOfXLogShortPHD;
	return position;
}

void
Fill::note_snapshot()
{
	visible_end_ = end_of_log();
}

/*
 * With synchronous_commit off the snapshot may have seen commits that a crash
 * would still undo; a value made from them must not outlive them.
 */
void
Fill::make_durable() const
{
	if (GetFlushRecPtr(nullptr) < visible_end_)
		pg::call([&] { XLogFlush(visible_end_); });
}

std::string
Fill::envelope(std::string_view value, bool by_settings) const
{
	Envelope envelope{};

	envelope.token.name_space = current_namespace(seen_.epoch);
	envelope.token.incarnation = seen_.incarnation;
	envelope.token.versions = seen_.versions;
	envelope.audience = current_audience(by_settings);
	envelope.by_settings = by_settings;
	envelope.key = redis_key_;
	envelope.tags = tags_;
	envelope.payload = value;
	return encode(envelope);
}

void
Fill::finish(std::string_view value, int64 ttl_ms, bool by_settings)
{
	std::string ttl = std::to_string(ttl_ms);
	redis::Request request;

	if (pg::redis_connection() != seen_.connection || (plain_ && watch_ != last_watch))
		return;
	make_durable();
	if (plain_)
	{
		request.add({"MULTI"});
		request.add({"SET", redis_key_, value, "PX", ttl});
		request.add({"EXEC"});
		watching = false;
		++last_watch;
	}
	else
		request.add({"SET", redis_key_, envelope(value, by_settings), "PX", ttl});

	/* Only ever on the connection that the versions came from. */
	auto replies = ask(request, nullptr, seen_.connection);

	if (replies && !note_first_refusal(*replies))
		last_refusal[0] = '\0';
}

} /* namespace cache_ext::cache */
