/*-------------------------------------------------------------------------
 *
 * read.cpp
 *		What a transaction may see and store; see read.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include <optional>
#include <vector>

#include "ext/cache/audience.hpp"
#include "ext/cache/cache.hpp"
#include "ext/cache/memory.hpp"
#include "ext/cache/query.hpp"
#include "ext/cache/read.hpp"
#include "ext/cache/tier.hpp"
#include "ext/invalidation/items.hpp"
#include "pg/guard.hpp"
#include "pg/redis_link.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "access/xlog.h"
#include "utils/snapmgr.h"
}

namespace cache_ext::cache {

/*
 * A REPEATABLE READ transaction has the one snapshot that it has.  So has a
 * parallel query: somebody has declared a function that calls us safe for it.
 */
static bool
may_take_snapshots()
{
	return !IsolationUsesXactSnapshot() && !IsInParallelMode();
}

static bool
has_changed_nothing()
{
	return pg::cache_enabled && !invalidation::have_items() &&
	       !FullTransactionIdIsValid(GetTopFullTransactionIdIfAny());
}

bool
may_share()
{
	return may_take_snapshots() && has_changed_nothing();
}

/*
 * What the memory tier has.  A REPEATABLE READ transaction gets what its snapshot
 * would show; a bare value's master is in Redis, where applications change it.
 */
static MemoryHit
remembered(const Ask &ask)
{
	if (ask.plain || IsInParallelMode() || IsolationIsSerializable() || !has_changed_nothing())
		return {};
	if (!IsolationUsesXactSnapshot())
		return memory_get(ask.key);

	Snapshot snapshot = pg::call([] { return GetTransactionSnapshot(); });

	return memory_get(ask.key, snapshot);
}

text *
make_text(std::string_view value)
{
	return pg::call(
	    [&] { return cstring_to_text_with_len(value.data(), static_cast<int>(value.size())); });
}

/*
 * Run the query under a snapshot of now, so that it sees at least all whose
 * invalidations the caller's versions include; the statement around us may
 * have started long ago.  A transaction with a snapshot of its own keeps to it.
 */
static void
answer_by_query(const Ask &ask, Fill *fill, QueryAnswer *answer)
{
	pg::call([&] {
		if (may_take_snapshots())
			PushActiveSnapshot(GetLatestSnapshot());
		else if (IsInParallelMode())
			PushActiveSnapshot(GetActiveSnapshot());
		else
			PushActiveSnapshot(GetTransactionSnapshot());
	});
	if (fill != nullptr)
		fill->note_snapshot();
	pg::call([&] {
		run_query(ask.query, ask.ttl_ms > 0, answer);
		PopActiveSnapshot();
	});
}

static bool
may_store(const Ask &ask, const QueryAnswer &answer)
{
	if (is_too_large(static_cast<size_t>(answer.json.len)))
		return false;
	/* A bare value says nothing about whom it is for. */
	if (answer.personal || (ask.plain && answer.by_settings))
		return false;
	/* The query itself may have called something that writes or collects. */
	return may_share();
}

static void
remember(const Ask &ask, const MemoryToken &token, const std::vector<std::string_view> &tags,
         std::string_view value, const QueryAnswer &answer, int64 ttl_ms)
{
	MemoryFacts facts;

	facts.expires_at = facts.keep_until = token.taken_at + ttl_ms * 1000;
	facts.audience = current_audience(answer.by_settings);
	facts.by_settings = answer.by_settings;
	(void) memory_set(token, ask.key, tags, value, facts);
}

static std::string_view
load(const Ask &ask, bool share, bool redis, const std::vector<std::string_view> &tags, Seen &&seen)
{
	QueryAnswer answer;
	MemoryToken token;
	std::optional<Fill> fill;

	if (share && !ask.plain)
		token = memory_token(ask.key, tags);
	if (redis && !RecoveryInProgress())
	{
		fill.emplace(ask.key, tags, ask.plain);
		if (!fill->begin(std::move(seen)))
			fill.reset();
	}
	answer_by_query(ask, fill ? &*fill : nullptr, &answer);

	std::string_view value(answer.json.data, static_cast<size_t>(answer.json.len));

	if (share && may_store(ask, answer))
	{
		int64 ttl_ms = jittered_ttl_ms(ask.ttl_ms);

		remember(ask, token, tags, value, answer, ttl_ms);
		if (fill)
			fill->finish(value, {ttl_ms, 0, current_audience(answer.by_settings), answer.by_settings});
	}
	return value;
}

text *
get(const Ask &ask)
{
	std::vector<std::string_view> tags(ask.tags.names, ask.tags.names + ask.tags.count);
	bool share = may_share();
	bool redis = share && pg::redis_configured();
	Seen seen;

	if (invalidation::have_items())
	{
		invalidation::PendingValue own =
		    pg::call([&] { return invalidation::pending_value(ask.key); });

		if (own.state == invalidation::Pending::kSet)
			return make_text(own.value);
	}
	if (MemoryHit found = remembered(ask); found.fresh)
		return make_text(found.value);
	if (redis)
	{
		Lookup found = look_up(ask.key, tags);

		if (found.outcome == Lookup::Outcome::kHit)
			return make_text(found.value());
		redis = found.outcome != Lookup::Outcome::kUnavailable;
		seen = std::move(found.seen);
	}
	if (ask.query == nullptr)
		return nullptr;
	return make_text(load(ask, share, redis, tags, std::move(seen)));
}

} /* namespace cache_ext::cache */
