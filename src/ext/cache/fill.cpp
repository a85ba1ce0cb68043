/*-------------------------------------------------------------------------
 *
 * fill.cpp
 *		The Redis tier: storing what a query has answered; see tier.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include <optional>

#include "core/cache/envelope.hpp"
#include "ext/cache/audience.hpp"
#include "ext/cache/cache.hpp"
#include "ext/cache/conversation.hpp"
#include "ext/cache/tier.hpp"
#include "pg/guard.hpp"
#include "pg/redis_link.hpp"

extern "C" {
#include "access/xlog.h"
#include "access/xlog_internal.h"
}

namespace cache_ext::cache {

using redis::Reply;

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
		if (!server.identified || !knows_deliveries(trust.state, server) || !versions.is_array() ||
		    versions.elements.size() != names.size())
			return false;
		if (auto digest = digest_versions(versions, 0, buckets_))
		{
			seen_ = {server.connection, trust.state.epoch, server.incarnation, *digest, {}};
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
	pg::RedisServer server;

	add_version_keys(&names, buckets_);
	if (!watch_.begin(names, &server))
		return false;
	seen_.connection = server.connection;
	return server.identified && knows_deliveries(trust.state, server);
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
Fill::sealed(std::string_view value, const Storing &how) const
{
	Envelope envelope{};

	envelope.token.name_space = current_namespace(seen_.epoch);
	envelope.token.incarnation = seen_.incarnation;
	envelope.token.versions = seen_.versions;
	envelope.audience = how.audience;
	envelope.by_settings = how.by_settings;
	envelope.made_at = static_cast<uint64>(now_ms());
	envelope.fresh_ms = static_cast<uint64>(how.ttl_ms);
	envelope.key = redis_key_;
	envelope.tags = tags_;
	envelope.payload = value;
	return encode(envelope);
}

bool
Fill::finish(std::string_view value, const Storing &how)
{
	std::string life = std::to_string(how.ttl_ms + how.stale_ms);

	if (pg::redis_connection() != seen_.connection)
		return false;
	make_durable();
	if (plain_)
		return watch_.execute({"SET", redis_key_, value, "PX", life}) == RedisWatch::Outcome::kDone;

	redis::Request request;

	request.add({"SET", redis_key_, sealed(value, how), "PX", life});

	/* Only ever on the connection that the versions came from. */
	auto replies = ask(request, nullptr, seen_.connection);

	return replies && !note_first_refusal(*replies);
}

} /* namespace cache_ext::cache */
