/*-------------------------------------------------------------------------
 *
 * delivery_epoch.cpp
 *		Epochs, and whether Redis still is the one that has all deliveries.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/delivery_steps.hpp"

#include "core/cache/envelope.hpp"
#include "ext/cache/cache.hpp"
#include "ext/invalidation/watch_rows.hpp"

extern "C" {
#include "access/xact.h"
#include "lib/stringinfo.h"
}

namespace cache_ext::invalidation {

using redis::Reply;
using redis::Request;

constexpr int64 kServerCheckMs = 1000;

/*
 * A new epoch, since nobody knows what was stored or changed meanwhile, or since
 * cache_clear() asked for one: own entries are void, and of others' everything
 * that is watched goes.  Done when this commits; a crash before it does it again.
 */
void
Delivery::raise_epoch(const Taken &taken)
{
	in_transaction([&](MemoryContext) {
		bool wanted = taken.lapse && take_lapse();

		for (int i = 0; i < taken.count; ++i)
		{
			if (!asks_for_epoch(taken.rows[i]))
				continue;
			delete_outbox_rows(taken.file, &taken.rows[i].tid, 1);
			wanted = true;
		}
		if (!wanted)
			return;

		StringInfoData items;
		const char raised[] = {static_cast<char>(ItemKind::kClear), 1, '+'};

		initStringInfo(&items);
		appendBinaryStringInfo(&items, raised, sizeof(raised));

		NewRow row = {kEveryBucket, 1, 1 + append_widened_items(&items), nullptr, 0, 0};
		Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
		RedisState state = read_redis_state(snapshot);
		DeliveryState delivery = read_delivery();

		UnregisterSnapshot(snapshot);
		row.payload = items.data;
		row.length = static_cast<size_t>(items.len);
		insert_outbox_rows(&row, 1);
		++state.epoch;
		write_redis_state(state);
		delivery.seq = 0;
		delivery.clean = false;
		write_delivery(delivery);
		ForceSyncCommit();
	});
	state_.seq = 0;
	dirty_ = true;
}

/* Another Redis than the one that has all deliveries: it may hold what was removed there. */
void
Delivery::adopt_server(const pg::RedisServer &server, const RedisState &known)
{
	RedisState state = known;

	/*
	 * Own entries that lie where we have been before, and missed what was told
	 * elsewhere, are void.
	 */
	if (known.has_incarnation)
		++state.epoch;
	state.has_incarnation = true;
	state.incarnation = server.incarnation;
	in_transaction([&](MemoryContext) {
		if (known.has_incarnation)
			requeue_retained();
		write_redis_state(state);
	});
	retained_names_.clear();
	retention_.forget_server();

	/* What has been put back may be older than the values; the first server has nothing to get
	 * back. */
	behind_ = behind_ || known.has_incarnation;
}

/*
 * Nothing waits to be told; but readers believe nothing until the server they
 * see is the known one, so another one is adopted without waiting for work.
 */
bool
Delivery::is_elsewhere(const RedisState &state) const
{
	pg::ExchangeOptions options;

	if (!state.has_incarnation)
		return false;
	options.ignore_backoff = true;
	try
	{
		return pg::redis_server(options).incarnation != state.incarnation;
	}
	catch (const Error &)
	{
		return false; /* readers that meet it ask again */
	}
}

/* REPLICAOF by hand does not cut connections: look whether this still is the server it was. */
void
Delivery::check_server()
{
	Moment now = this_moment();

	if (pg::redis_connection() == 0 || now.steady < next_check_)
		return;
	next_check_ = now.steady + kServerCheckMs * 1000;

	pg::ExchangeOptions options;

	options.ignore_backoff = true;

	pg::RedisServer server = pg::redis_server(options);
	Request request;

	request.add({"INFO"});

	std::vector<Reply> replies = pg::redis_exchange(request, options);

	expect_good(replies[0]);

	ServerInfo info = parse_server_info(replies[0].text);

	if (cache::digest_instance(info.run_id, info.master_replid) != server.instance)
		pg::redis_disconnect();
	else
		retention_.looked(info, now);
}

} /* namespace cache_ext::invalidation */
