/*-------------------------------------------------------------------------
 *
 * delivery_steps.hpp
 *		The delivery of a database: what it knows and the steps of a turn.
 *
 * Each step is in a file of its own, delivery_<step>.cpp; delivery.cpp puts them in
 * order and has the argument.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "core/base/error.hpp"
#include "core/invalidation/retention.hpp"
#include "ext/invalidation/batch.hpp"
#include "ext/invalidation/commands.hpp"
#include "ext/invalidation/delivery.hpp"
#include "ext/invalidation/plan.hpp"
#include "ext/invalidation/tag_sets.hpp"

namespace cache_ext::invalidation {

/* From as many rows on a merge is worth a look. */
constexpr int kMergeAtLeast = 5000;

/*
 * Names that were retained a short while ago, by a fingerprint of 64 bits that
 * is keyed at random, so that nobody can make two names meet.  A name that was
 * pushed out is retained once more.
 */
class RecentNames
{
  public:
	bool has(std::string_view name, TimestampTz since) const;
	void note(std::string_view name, TimestampTz at);
	void clear() { places_.clear(); }

  private:
	struct Place
	{
		uint64 fingerprint;
		TimestampTz at;
	};

	uint64 fingerprint(std::string_view name) const;

	std::vector<Place> places_;
	uint64 key_ = 0;
};

/* What is removed a few steps a turn: patterns of some rows, and large tag sets. */
struct Sweep
{
	struct Job
	{
		std::string pattern; /* as SCAN takes it */
		std::string literal; /* that it begins with */
		bool tag_sets;       /* what it finds are sets of keys */
		std::string member_prefix;
	};

	std::vector<OutboxRow> rows;
	std::deque<std::string> payloads; /* where the rows point to */
	Oid file = InvalidOid;
	std::deque<Job> jobs;
	size_t pass = 0;   /* so many jobs, the first ones, share a pass over the keys; 0: none is on */
	std::string match; /* of the pass */
	std::string cursor;
	TagSetEmptier sets;      /* found by a job, or too large for a batch; before the jobs */
	bool holds_sets = false; /* of rows that ask for no pattern */
	std::unordered_set<uint64> places;
	uint64 last_number = 0; /* commits whose patterns are all in it, 0: unknown */
	std::unordered_set<std::string> forbidden; /* patterns that found a key we may not touch */
	std::string refusal;                       /* what Redis said to the last one */

	bool active() const { return !rows.empty(); }
	bool done() const { return jobs.empty() && sets.done(); }
	void add_row(const OutboxRow &row, Oid of_file);
	void begin_pass();
	bool wants(const Job &job, std::string_view key) const;
};

Moment this_moment();

class Delivery
{
  public:
	DeliveryTurn turn();
	void finish();
	void vacuum();

  private:
	void load();
	void raise_epoch(const Taken &taken);
	void adopt_server(const pg::RedisServer &server, const RedisState &state);
	bool is_elsewhere(const RedisState &state) const;
	void check_server();
	void begin_sweep(const std::vector<const OutboxRow *> &rows, Oid file);
	void sweep_sets(const std::vector<TagSet> &sets, Oid file, Plan *plan,
	                std::vector<const OutboxRow *> *rows);
	void unlink_found(const Channel &channel, const std::vector<std::string_view> &keys);
	void scan_for_jobs(const Channel &channel);
	void end_sweep(const Channel &channel, uint64 lsn);
	void continue_sweep(const Channel &channel, uint64 lsn);
	void deliver(const Channel &channel, Plan &plan, const Taken &taken, bool with_values,
	             TagSetEmptier &sets);
	void send_values(const Channel &channel, const Plan &plan, const RedisState &state,
	                 const Versions &fresh);
	void add_messages(Stream *stream, const Plan &plan, const Taken &taken);
	void acknowledge(const Plan &plan, Oid file, const std::vector<ItemPointerData> &tids,
	                 const Digest &incarnation);
	void confirm(const Taken &taken);
	void repeat_what_is_due();
	void maybe_purge();
	void maybe_merge();
	void merge_window(const Taken &taken);
	void replace_rows(const Taken &taken, const std::vector<NewRow> &rows, int64 saved);
	void narrow_down(const std::vector<const OutboxRow *> &rows, const Plan &plan,
	                 const NotPermitted &error);
	void narrow_sweep_down();
	void leave_alone(const OutboxRow &row);
	DeliveryTurn failed(const Error &error);
	DeliveryTurn work();
	bool under_load(const Taken &taken);

	bool loaded_ = false;
	bool dirty_ = false; /* "not clean" is written down */
	DeliveryState state_ = {};
	bool pending_ = false;               /* rows are known to wait */
	int row_limit_ = kBatchRows;         /* less while a row that is refused is looked for */
	bool narrowing_ = false;             /* that is what the last failure began */
	std::unordered_set<uint64> refused_; /* places of rows that are left alone */
	int64 refused_until_ = 0;            /* steady */
	int refused_rounds_ = 0;             /* in a row in which something was refused */
	size_t sweep_limit_ = kBatchRows;    /* rows in a sweep, as row_limit_ */
	bool behind_ = true;                 /* values of what was visible before must not be sent */
	int failures_ = 0;
	double commit_rate_ = 0; /* transactions a second that left something, of late */
	TimestampTz last_turn_ = 0;
	int64 unwritten_retries_ = 0;
	std::string last_error_;
	TimestampTz last_error_at_ = 0;
	bool watching_ = false;
	int merge_from_rows_ = kMergeAtLeast;
	int64 merge_from_items_ = kMergeAtLeast;
	uint32 merge_page_ = 0;        /* of the outbox: nothing before it can be said shorter */
	uint32 merge_again_pages_ = 0; /* when the outbox has so many, look from its start again */
	int64 dead_rows_ = 0;          /* since the last vacuum of the outbox */
	TimestampTz next_look_at_size_ = 0;
	int64 dead_retained_ = 0;
	TimestampTz next_repeat_ = 0; /* 0: nothing is to be repeated */
	int64 next_check_ = 0;        /* steady */
	int64 next_purge_ = 0;
	RecentNames retained_names_;
	Sweep sweep_;
	Retention retention_;
};

} /* namespace cache_ext::invalidation */
