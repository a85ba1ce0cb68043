/*-------------------------------------------------------------------------
 *
 * load.cpp
 *		Loading a value that no tier has; see load.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/cache/load.hpp"

#include <algorithm>

#include "core/base/error.hpp"
#include "ext/cache/audience.hpp"
#include "ext/cache/cache.hpp"
#include "ext/cache/counters.hpp"
#include "ext/cache/load_lock.hpp"
#include "ext/cache/memory.hpp"
#include "pg/guard.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "access/xlog.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
}

namespace cache_ext::cache {

/* -------------------------------------------------------------------------
 * Running the query and storing what it says
 * -------------------------------------------------------------------------
 */

/*
 * Run the query under a snapshot of now, so that it sees at least all whose
 * invalidations the caller's versions include; the statement around us may
 * have started long ago.  A transaction with a snapshot of its own keeps to it.
 */
static void
answer_by_query(const QueryCall &call, Fill *fill, QueryAnswer *answer)
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
		run_query(call, answer);
		PopActiveSnapshot();
	});
}

static void
answer_counted(const QueryCall &call, Fill *fill, QueryAnswer *answer)
{
	uint64 begun = clock_ns();

	try
	{
		answer_by_query(call, fill, answer);
	}
	catch (...)
	{
		count(Tier::kQuery, Event::kError);
		throw;
	}
	count(Tier::kQuery, Event::kHit);
	count_latency(Tier::kQuery, clock_ns() - begun);
}

static bool
may_store(const Source &source, const QueryAnswer &answer)
{
	if (is_too_large(static_cast<size_t>(answer.json.len)))
		return false;
	/* A bare value says nothing about whom it is for. */
	if (answer.personal || (source.plain && answer.by_settings))
		return false;
	/* The query itself may have called something that writes or collects. */
	return may_share();
}

static Storing
how_to_store(const Source &source, const QueryAnswer &answer)
{
	ActingLoader acting(source.loader());
	bool negative = answer.rows == 0 && source.negative_ttl_ms > 0;

	return {jittered_ttl_ms(negative ? source.negative_ttl_ms : source.ttl_ms),
	        negative ? 0 : source.stale_ms, current_audience(answer.by_settings),
	        answer.by_settings};
}

static bool
remember(const Miss &miss, const MemoryToken &token, std::string_view value, const Storing &how,
         int64 load_us)
{
	MemoryFacts facts;

	facts.expires_at = token.taken_at + how.ttl_ms * 1000;
	facts.keep_until = facts.expires_at + how.stale_ms * 1000;
	facts.audience = how.audience;
	facts.by_settings = how.by_settings;
	facts.load_us = static_cast<uint32>(std::clamp<int64>(load_us, 1, PG_UINT32_MAX));
	return memory_set(token, miss.key, miss.source->tags(), value, facts);
}

/* The answer of the query, stored where it can be; *stored says whether it was. */
static text *
run(Miss &miss, bool *stored)
{
	const Source &source = *miss.source;
	QueryAnswer answer;
	MemoryToken token;
	std::optional<Fill> fill;

	*stored = false;
	if (miss.share && !source.plain)
		token = memory_token(miss.key, source.tags());
	if (miss.redis && !RecoveryInProgress())
	{
		fill.emplace(miss.key, source.tags(), source.plain);
		if (!fill->begin(std::move(miss.seen)))
			fill.reset();
	}

	uint64 begun = clock_ns();

	answer_counted(source.call(), fill ? &*fill : nullptr, &answer);

	std::string_view value(answer.json.data, static_cast<size_t>(answer.json.len));

	if (miss.share && may_store(source, answer))
	{
		Storing how = how_to_store(source, answer);

		*stored =
		    remember(miss, token, value, how, static_cast<int64>((clock_ns() - begun) / 1000));
		if (*stored)
			count(Tier::kMemory, Event::kSet);
		if (fill)
		{
			bool kept = fill->finish(value, how);

			count(Tier::kRedis, kept ? Event::kSet : Event::kError);
			*stored = *stored || kept;
		}
	}
	return make_text(value);
}

/* -------------------------------------------------------------------------
 * When the source fails
 * -------------------------------------------------------------------------
 */

/* Run fn; what it raises is undone and returned, unless somebody wants us to stop. */
template <typename Fn>
static ErrorData *
in_subtransaction(Fn &&fn)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	auto come_back = [&] {
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	};

	auto roll_back = [&] {
		pg::call([] { RollbackAndReleaseCurrentSubTransaction(); });
		come_back();
	};

	pg::call([&] {
		BeginInternalSubTransaction(nullptr);
		MemoryContextSwitchTo(context);
	});
	try
	{
		fn();
		pg::call([] { ReleaseCurrentSubTransaction(); });
		come_back();
		return nullptr;
	}
	catch (const pg::PgError &error)
	{
		roll_back();
		if (ERRCODE_TO_CATEGORY(error.edata()->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION)
			throw;
		return error.edata();
	}
	catch (...)
	{
		roll_back();
		throw;
	}
}

static text *
give_stale(const Miss &miss, const char *why)
{
	text *value = miss.stale ? miss.look_for_stale() : nullptr;
	std::string_view key = miss.key;

	if (value != nullptr)
		count(Tier::kQuery, Event::kStaleHit);
	if (value != nullptr)
		pg::call([&] {
			ereport(WARNING,
			        (errmsg("could not renew cache entry \"%.*s\", an expired value is given",
			                static_cast<int>(key.size()), key.data()),
			         errdetail_internal("%s", why)));
		});
	return value;
}

/* The query's answer; with something to fall back on its failure is a warning. */
static text *
run_failing_safe(Miss &miss, bool *stored)
{
	text *value = nullptr;

	if (!miss.stale)
		return run(miss, stored);

	ErrorData *error = in_subtransaction([&] { value = run(miss, stored); });

	if (error == nullptr)
		return value;
	value = give_stale(miss, error->message);
	if (value == nullptr)
		throw pg::PgError(error);
	return value;
}

/* -------------------------------------------------------------------------
 * One load a miss, and not too many at once
 * -------------------------------------------------------------------------
 */

constexpr int kFirstPauseMs = 1;
constexpr int kLongestPauseMs = 20;

/* Pauses that grow with the time already spent, up to cache_ext.load_wait. */
class Patience
{
  public:
	Patience() : begun_(GetCurrentTimestamp()) {}

	bool is_over() const { return waited_ms() >= pg::load_wait_ms; }

	void pause() const
	{
		int64 ms = std::clamp<int64>(waited_ms() / 8, kFirstPauseMs, kLongestPauseMs);

		pg::call([&] {
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_TIMEOUT,
			                 static_cast<long>(ms), PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		});
	}

  private:
	int64 waited_ms() const { return (GetCurrentTimestamp() - begun_) / 1000; }

	TimestampTz begun_;
};

/* Raised, or an expired value given, when the server is busy loading other things. */
static text *
run_in_slot(Miss &miss, const Patience &patience, bool *stored)
{
	LoadSlot slot;

	while (!slot.take())
	{
		if (patience.is_over())
		{
			if (text *value = give_stale(miss, "Too many loads are under way."))
				return value;
			throw Error({"53400"}, "too many cache loads are under way",
			            "There are " + std::to_string(pg::max_loads) +
			                ", and none ended within cache_ext.load_wait.",
			            "Retry, or increase cache_ext.max_loads.");
		}
		patience.pause();
	}

	text *value = run_failing_safe(miss, stored);

	slot.release();
	return value;
}

/* Could a value be stored for those who would wait for it? */
static bool
is_storable(const Miss &miss)
{
	if (!miss.share || RecoveryInProgress())
		return false;
	return miss.redis || (memory_available() && !miss.source->plain);
}

/* An envelope is this server's own: others would not take what is in it. */
static LoadLock
lock_of(const Miss &miss)
{
	return LoadLock(miss.source->number(miss.key),
	                miss.source->plain ? std::string_view(miss.key) : std::string_view());
}

/*
 * Until the lock is ours; a value when somebody else has stored it meanwhile.
 * Gives up, with neither, when waiting is in vain or has lasted too long.  When
 * the one who has loaded is done all others look at once: those who took the
 * lock for that would look one after the other.
 */
static text *
wait_for_turn(Miss *miss, LoadLock *lock, const Patience &patience)
{
	for (bool waited = false;; waited = true)
	{
		if (waited && lock->is_free())
			if (text *value = miss->look_again(miss, waited))
				return value;
		if (lock->take())
		{
			if (text *value = miss->look_again(miss, waited))
				return value;
			if (!miss->redis || lock->take_lease())
				return nullptr;
		}
		if (lock->is_in_vain() || patience.is_over())
			return nullptr;
		patience.pause();
	}
}

text *
load(Miss &&miss)
{
	LoadLock lock = lock_of(miss);
	Patience patience;
	bool stored = false;

	if (!miss.share)
		return run(miss, &stored);
	if (!is_storable(miss) || lock.is_in_vain())
	{
		text *value = run_in_slot(miss, patience, &stored);

		lock.note_stored(stored);
		return value;
	}

	text *value = wait_for_turn(&miss, &lock, patience);

	if (value == nullptr)
	{
		value = run_in_slot(miss, patience, &stored);
		lock.note_stored(stored);
	}
	lock.release();
	return value;
}

void
load_for_all(Miss &&miss)
{
	LoadLock lock = lock_of(miss);
	Patience patience;
	bool stored = false;

	if (!is_storable(miss))
		throw Error({"55000"}, "there is nothing to keep cache entries in");
	if (!lock.take())
		return;
	(void) run_in_slot(miss, patience, &stored);
	lock.release();
	if (!stored)
		throw Error(
		    kFeatureNotSupported, "the answer could not be stored",
		    "It is too large, depends on the session, or was overtaken by an invalidation.");
}

std::string
error_of(const std::function<void()> &fn)
{
	ErrorData *error = in_subtransaction([&] {
		try
		{
			fn();
		}
		catch (const Error &own)
		{
			/* As an error of the server's, so that it is undone like one. */
			const char *message = own.message().c_str();

			pg::call([&] { ereport(ERROR, (errmsg_internal("%s", message))); });
		}
	});

	return error == nullptr ? std::string() : std::string(error->message);
}

text *
load_anew(Miss &&miss)
{
	LoadLock lock = lock_of(miss);
	text *value = nullptr;
	bool stored = false;

	if (!is_storable(miss) || !lock.take())
		return nullptr;
	if (!miss.redis || lock.take_lease())
		(void) in_subtransaction([&] { value = run(miss, &stored); });
	lock.release();
	return value;
}

} /* namespace cache_ext::cache */
