/*-------------------------------------------------------------------------
 *
 * delivery.cpp
 *		From the outbox to Redis.
 *
 * A batch: read rows in a transaction that ends before anything is sent; make
 * sure that what they stand for is on disk; tell Redis; read every reply; then
 * remove the rows and retain their items in one transaction.  A crash anywhere
 * repeats the batch, which is harmless: only removals are sent, and new
 * versions, and a value only under the conditions below.
 *
 * To Redis in this order, each before the next: floor and new versions; keys;
 * the members of tag sets; values; messages and the event.  Versions go first,
 * because a fill between the removal of a key and the new version would look
 * valid.
 *
 * A value (cache_set) is sent when no other transaction of the batch touches a
 * bucket of its entry, and only while batches have taken all that was visible:
 * then a later batch means a later commit.  After a failure, a crash or a batch
 * that was cut short, values are left out until one batch has taken everything;
 * the key then is absent, which the contract allows.
 *
 * Patterns need SCAN, which may take long.  Their rows stay in the outbox while
 * a sweep goes over the keys in bounded steps between other batches; then they
 * are delivered like the rest.  So do those that name a tag set too large for a
 * batch.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/delivery.hpp"

#include <algorithm>

#include "ext/invalidation/delivery_steps.hpp"
#include "pg/guard.hpp"
#include "pg/redis_link.hpp"
#include "pg/vacuum.hpp"
#include "pg/worker_table.hpp"

extern "C" {
#include "common/pg_prng.h"
#include "utils/timestamp.h"
}

namespace cache_ext::invalidation {

constexpr int kIdleMs = 1000;
constexpr int kPauseMs = 7; /* between batches: the first commit is told at once, the next soon */
constexpr double kBusyRate = 2500; /* commits a second from which on there is such a pause */
constexpr double kRateWindowS = 0.05;
constexpr int kFirstBackoffMs = 50;
constexpr int kLongestBackoffMs = 2000;
constexpr int kFailuresBeforeMerge = 3;
constexpr int64 kDeadRows = 2000; /* worth a vacuum */
constexpr int64 kSizeCheckMs = 1000;
constexpr uint32 kPagesOfIdleOutbox = 16;
constexpr int64 kShortenAgainMs = 10 * 1000;

/* What a batch may take out of tag sets before the rest is left to a sweep. */
constexpr size_t kTagSetMembers = 10 * 1000;
constexpr size_t kSweptRows = 20 * 1000; /* no more of them are kept in memory for that */

/* Rows that Redis refuses: how long they are left alone, longer each time, and how many at most. */
constexpr int64 kRefusedMs = 5 * 1000;
constexpr int kMostDoublings = 4;
constexpr size_t kMostRefused = 100;

/* After an unclean end somebody may have heard of numbers that were not written down. */
constexpr int64 kSeqJump = 1000 * 1000;

void
Delivery::load()
{
	if (loaded_)
		return;

	DeliveryState state = {};
	bool retained = false;
	TimestampTz repeat = 0;

	in_transaction([&](MemoryContext) {
		repeat = queue_due_repeats(GetCurrentTimestamp());
		state = read_delivery();
		retained = any_retained();
	});
	state_ = state;
	watching_ = retained;
	next_repeat_ = repeat;
	behind_ = !state.clean;
	if (!state.clean)
		state_.seq += kSeqJump;
	loaded_ = true;
	if (pg::WorkerSlot *slot = pg::my_worker_slot())
		pg::note_failing(slot, false);
}

/*
 * Everything in Redis that a plan asks for, in the order that the argument needs.
 * The sets are its tag sets; of large ones something may be left in them.
 */
void
Delivery::deliver(const Channel &channel, Plan &plan, const Taken &taken, bool with_values,
                  TagSetEmptier &sets)
{
	plan.settle();

	Versions versions(plan);
	FullNames keys(plan.keys);
	FullNames sessions(plan.sessions);
	Stream stream(channel);
	bool values = with_values && !plan.values.empty();
	bool empties = !sets.done();
	bool short_of_memory = false;

	for (;;)
	{
		if (short_of_memory)
			versions.remove(&stream);
		else if (!versions.empty())
			versions.send(&stream, taken.insert_lsn);
		stream.add_many({"UNLINK"}, keys.names());
		stream.add_many({"UNLINK"}, sessions.names());
		sets.ask_which(&stream);
		if (!empties && !values)
			add_messages(&stream, plan, taken); /* nothing else is to come before */
		stream.finish();
		sets.answered(stream.take_kept());
		if (!stream.no_memory() || short_of_memory)
			break;
		short_of_memory = true;
	}
	while (!sets.done() && !sets.spent())
		sets.step(channel);
	if (!empties && !values)
		return;
	if (values && !short_of_memory)
		send_values(channel, plan, taken.state, versions);
	add_messages(&stream, plan, taken);
	stream.finish();
}

/*
 * Is it worth waiting for company before the next batch?  Where few commit, each
 * is told at once; where many do, a batch for each would take the processor from
 * them.  Who waits for a confirmation has all the company that there will be.
 */
bool
Delivery::under_load(const Taken &taken)
{
	TimestampTz now = GetCurrentTimestamp();
	double seconds = Max(static_cast<double>(now - last_turn_) / USECS_PER_SEC, 1e-6);
	double weight = Min(seconds / kRateWindowS, 1.0);
	pg::WorkerSlot *slot = pg::my_worker_slot();

	commit_rate_ += weight * (taken.transactions / seconds - commit_rate_);
	last_turn_ = now;
	return commit_rate_ > kBusyRate && (slot == nullptr || !pg::somebody_waits(slot));
}

DeliveryTurn
Delivery::work()
{
	Taken taken;

	load();
	repeat_what_is_due();
	if (this_moment().steady >= refused_until_)
		refused_.clear();
	taken.row_limit = row_limit_;
	taken.left_alone = &refused_;
	read_batch(&taken);

	pending_ = taken.count > 0 || taken.left_some || sweep_.active();

	bool epoch_wanted = taken.lapse;

	for (int i = 0; i < taken.count; ++i)
		epoch_wanted = epoch_wanted || asks_for_epoch(taken.rows[i]);
	if (taken.count == 0 && !epoch_wanted && !sweep_.active() && !watching_ &&
	    !is_elsewhere(taken.state))
	{
		bool occupied = false;

		if (!taken.left_some)
			refused_rounds_ = 0;
		in_transaction([&](MemoryContext) { occupied = outbox_occupied(); });
		behind_ = taken.left_some;
		confirm(taken);
		return {kIdleMs, occupied, false, false};
	}

	pg::ExchangeOptions options;

	options.ignore_backoff = true;
	check_server();

	pg::RedisServer server = pg::redis_server(options);

	if (!taken.state.has_incarnation || taken.state.incarnation != server.incarnation)
	{
		sweep_ = Sweep();
		adopt_server(server, taken.state);
		return {0, true, true, false};
	}
	if (epoch_wanted)
	{
		bool lapse = taken.lapse;

		raise_epoch(taken);
		return {lapse ? kPauseMs : 0, true, true, lapse};
	}

	Channel channel(server);
	Plan plan(static_cast<size_t>(taken.items));
	std::vector<const OutboxRow *> told;
	std::vector<const OutboxRow *> swept;
	bool swept_all = !taken.cut_short && !taken.left_some;

	for (int i = 0; i < taken.count; ++i)
	{
		const OutboxRow &row = taken.rows[i];

		if (sweep_.active() && sweep_.file == taken.file &&
		    sweep_.places.count(place_of(row.tid)) != 0)
			continue;
		if (needs_sweep(row))
		{
			if (!sweep_.active() && swept.size() < sweep_limit_)
				swept.push_back(&row);
			else
				swept_all = false;
			continue;
		}
		plan.add(row);
		told.push_back(&row);
	}
	if (!dirty_ && (!told.empty() || !swept.empty()))
	{
		/* From here on somebody may hear of numbers that are not written down. */
		state_.clean = false;

		const DeliveryState &state = state_;

		in_transaction([&](MemoryContext) { write_delivery(state); });
		dirty_ = true;
	}
	if (!swept.empty())
	{
		Plan patterns(swept.size());

		begin_sweep(swept, taken.file);
		for (const OutboxRow *row : swept)
			patterns.add(*row);
		plan.touch_also(patterns);
	}
	if (!swept.empty() && swept_all)
		sweep_.last_number = taken.last_number;
	if (!told.empty() || !swept.empty())
	{
		TagSetEmptier sets(sweep_.rows.size() < kSweptRows ? kTagSetMembers : SIZE_MAX);
		std::vector<ItemPointerData> tids;

		sets.add(full_sets(plan.tag_sets));
		try
		{
			deliver(channel, plan, taken, !behind_ && !taken.cut_short && !taken.left_some, sets);
		}
		catch (const NotPermitted &error)
		{
			narrow_down(told, plan, error);
			throw;
		}
		if (!sets.done())
			sweep_sets(sets.rest(), taken.file, &plan, &told);
		for (const OutboxRow *row : told)
			tids.push_back(row->tid);
		if (!tids.empty())
			acknowledge(plan, taken.file, tids, server.incarnation);
		row_limit_ = Min(row_limit_ * 2, kBatchRows);
	}
	behind_ = taken.cut_short || taken.left_some;
	confirm(taken);
	try
	{
		if (sweep_.active())
			continue_sweep(channel, taken.insert_lsn);
	}
	catch (const NotPermitted &)
	{
		if (!narrowing_) /* or it is known which rows are meant */
			narrow_sweep_down();
		throw;
	}
	maybe_purge();
	failures_ = 0;
	merge_page_ = 0;
	if (pg::WorkerSlot *slot = pg::my_worker_slot())
		pg::note_failing(slot, false);

	if (taken.cut_short || sweep_.active())
		return {0, true, true, false};
	if (taken.count > 0 && under_load(taken))
		return {kPauseMs, true, watching_, true};
	if (taken.count > 0)
		return {kIdleMs, true, watching_, false};

	bool occupied = false;

	in_transaction([&](MemoryContext) { occupied = outbox_occupied(); });
	return {kIdleMs, occupied, watching_, false};
}

/*
 * Redis does not let us touch a name of these rows: half of them are tried next,
 * and so on.  A row that is refused alone is left alone for a while, so that one
 * name too many in a watch does not hold up everybody's.
 */
void
Delivery::narrow_down(const std::vector<const OutboxRow *> &rows, const Plan &plan,
                      const NotPermitted &error)
{
	if (rows.empty() || refused_.size() >= kMostRefused)
	{
		row_limit_ = kBatchRows;
		return;
	}
	narrowing_ = true;
	row_limit_ = Max(1, static_cast<int>(rows.size() / 2));
	if (rows.size() > 1)
		return;
	leave_alone(*rows.front());
	if (!plan.keys.empty())
		throw NotPermitted(kConnectionFailure, error.message() + " (one of them is \"" +
		                                           printable_name(plan.keys.front()) + "\")");
}

/* The same for what a sweep could not go on with; of keys that it finds, see unlink_found(). */
void
Delivery::narrow_sweep_down()
{
	narrowing_ = true;
	sweep_limit_ = Max(sweep_.rows.size() / 2, size_t{1});
	if (sweep_.rows.size() == 1)
		leave_alone(sweep_.rows.front());
}

/* Until the pause is over for all that is left alone. */
void
Delivery::leave_alone(const OutboxRow &row)
{
	if (refused_.empty())
	{
		refused_until_ =
		    this_moment().steady + (kRefusedMs << Min(refused_rounds_, kMostDoublings)) * 1000;
		++refused_rounds_;
	}
	refused_.insert(place_of(row.tid));
}

/* Redis is away or refuses: everything stays, and the pauses grow. */
DeliveryTurn
Delivery::failed(const Error &error)
{
	TimestampTz now = GetCurrentTimestamp();
	int64 pause = kFirstBackoffMs;

	pg::redis_disconnect();
	behind_ = true;
	sweep_ = Sweep();
	++unwritten_retries_;
	for (int i = 0; i < failures_ && pause < kLongestBackoffMs; ++i)
		pause *= 2;
	pause = Min(pause, kLongestBackoffMs);
	pause = pause / 2 + static_cast<int64>(pg_prng_double(&pg_global_prng_state) *
	                                       static_cast<double>(pause / 2));
	++failures_;
	if (pg::WorkerSlot *slot = pg::my_worker_slot())
		pg::note_failing(slot, true);

	/* The status view is told of each new error, and of a lasting one now and then. */
	if (loaded_ && (error.message() != last_error_ || now - last_error_at_ > 10 * USECS_PER_SEC))
	{
		const char *message = error.message().c_str();
		int64 retried = state_.retried + unwritten_retries_;

		in_transaction([&](MemoryContext) { write_delivery_error(message, retried); });
		state_.retried = retried;
		unwritten_retries_ = 0;
		last_error_ = error.message();
		last_error_at_ = now;
	}
	if (pending_ && failures_ > kFailuresBeforeMerge)
		maybe_merge();
	return {static_cast<int>(pause), pending_, watching_, true};
}

DeliveryTurn
Delivery::turn()
{
	if (!pg::redis_configured())
		return {kIdleMs, false, false, false};
	try
	{
		DeliveryTurn turn = work();

		/* Who is to repeat something stays for it. */
		if (next_repeat_ != 0)
		{
			int64 wait_ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next_repeat_);

			turn.wait_ms = static_cast<int>(Min(static_cast<int64>(turn.wait_ms), wait_ms));
			turn.occupied = true;
		}
		return turn;
	}
	catch (const NotPermitted &error)
	{
		if (!narrowing_)
			return failed(error);
		narrowing_ = false;
		failures_ = 0; /* no outage, in which rows would be merged */

		DeliveryTurn turn = failed(error);

		return {0, true, turn.watching, false};
	}
	catch (const Error &error)
	{
		return failed(error);
	}
	catch (...)
	{
		behind_ = true;
		sweep_ = Sweep();
		throw;
	}
}

void
Delivery::finish()
{
	if (!loaded_ || !dirty_)
		return;
	state_.clean = !behind_ && failures_ == 0;

	const DeliveryState &state = state_;

	in_transaction([&](MemoryContext) { write_delivery(state); });
	dirty_ = false;
}

/*
 * Every delivery reads the whole outbox, and so do readers: it is kept at a few
 * dozen pages under load, and cut short when a backlog that has been delivered
 * has made it large.
 */
void
Delivery::vacuum()
{
	TimestampTz now = GetCurrentTimestamp();

	if (dead_rows_ >= kDeadRows)
	{
		pg::call([] { pg::vacuum_internal_table("outbox"); });
		dead_rows_ = 0;
	}
	if (dead_retained_ >= kDeadRows)
	{
		pg::call([] { pg::vacuum_internal_table("retained"); });
		dead_retained_ = 0;
	}
	if (now < next_look_at_size_ || behind_ || sweep_.active())
		return;

	bool large = false;
	auto shortened = pg::Shortened::kNot;

	in_transaction([&](MemoryContext) {
		large = outbox_pages() > (pending_ ? kPagesOfSmallOutbox : kPagesOfIdleOutbox);
	});
	if (large)
		pg::call([&] {
			if (dead_rows_ > 0)
				pg::vacuum_internal_table("outbox");
			shortened = pg::cut_internal_table("outbox");
		});
	if (large)
		dead_rows_ = 0;
	next_look_at_size_ =
	    now + (shortened == pg::Shortened::kHeldOff ? kShortenAgainMs : kSizeCheckMs) * 1000;
}

static Delivery *
delivery()
{
	static Delivery *the_delivery = nullptr;

	if (the_delivery == nullptr)
		the_delivery = new Delivery();
	return the_delivery;
}

DeliveryTurn
deliver_batch()
{
	return pg::guard([] { return delivery()->turn(); });
}

void
vacuum_outbox()
{
	pg::guard([] { delivery()->vacuum(); });
}

void
finish_delivery()
{
	pg::guard([] { delivery()->finish(); });
}

} /* namespace cache_ext::invalidation */
