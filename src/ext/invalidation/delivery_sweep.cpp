/*-------------------------------------------------------------------------
 *
 * delivery_sweep.cpp
 *		Going over the keys of Redis for patterns, in bounded steps.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/delivery_steps.hpp"

#include <set>
#include <tuple>

#include "core/invalidation/bucket.hpp"
#include "core/invalidation/dialect.hpp"
#include "core/invalidation/glob.hpp"
#include "pg/settings.hpp"
#include "pg/worker_table.hpp"

namespace cache_ext::invalidation {

using redis::Reply;
using redis::Request;

constexpr int kSweepSteps = 8; /* round trips in one turn */
constexpr size_t kPatternsInPass = 100;

void
Sweep::add_row(const OutboxRow &row, Oid of_file)
{
	file = of_file;
	payloads.emplace_back(row.payload, row.length);
	rows.push_back(row);
	rows.back().payload = payloads.back().data();
	places.insert(place_of(row.tid));
}

void
Delivery::begin_sweep(const std::vector<const OutboxRow *> &rows, Oid file)
{
	std::string prefix = glob_escape(pg::key_prefix);
	std::set<std::tuple<std::string, bool, std::string>> wanted;
	Plan plan(rows.size());

	for (const OutboxRow *row : rows)
	{
		std::string_view rest(row->payload, row->length);
		ItemKind kind;
		std::string_view body;

		sweep_.add_row(*row, file);
		plan.add(*row);
		while (take_item(rest, kind, body))
		{
			if (kind == ItemKind::kPattern)
				wanted.emplace(prefix + std::string(body), false, "");
			else if (kind == ItemKind::kTagPattern)
				wanted.emplace(prefix + "tag:" + std::string(body), true, pg::key_prefix);
			else if (kind == ItemKind::kTagSetPattern)
			{
				size_t end = body.find(kPrefixEnd);
				std::string_view own = body.substr(0, end);

				wanted.emplace(prefix + std::string(own) +
				                   "tag:" + std::string(body.substr(end + 1)),
				               true, pg::key_prefix + glob_literal_prefix(own));
			}
		}
	}
	for (const auto &[pattern, tag_sets, member_prefix] : wanted)
		sweep_.jobs.push_back({pattern, glob_literal_prefix(pattern), tag_sets, member_prefix});
	sweep_.sets.add(full_sets(plan.tag_sets));
}

/*
 * These sets are too large for a batch.  The rows that name one of them stay in
 * the outbox until a sweep has emptied it; then they are delivered once more, so
 * that whoever listens hears of them when the last member has gone.
 */
void
Delivery::sweep_sets(const std::vector<TagSet> &sets, Oid file, Plan *plan,
                     std::vector<const OutboxRow *> *rows)
{
	std::unordered_set<std::string> keys;
	std::vector<const OutboxRow *> others;

	for (const TagSet &set : sets)
		keys.insert(set.key);
	for (const OutboxRow *row : *rows)
	{
		Plan alone(static_cast<size_t>(row->items));
		bool named = false;

		alone.add(*row);
		for (const TagSet &set : full_sets(alone.tag_sets))
			named = named || keys.count(set.key) != 0;
		if (named)
		{
			sweep_.add_row(*row, file);
			plan->items -= row->items;
		}
		else
			others.push_back(row);
	}
	*rows = std::move(others);
	sweep_.sets.add(sets);
	sweep_.holds_sets = true;
}

/*
 * What one pass over the keys of Redis looks for.  One pattern is matched by Redis;
 * several are matched here, so that many do not cost a pass each.  Redis has its own
 * mind about malformed classes of characters, so a pattern with one goes alone.
 */
void
Sweep::begin_pass()
{
	auto has_class = [](const Job &job) { return job.pattern.find('[') != std::string::npos; };
	std::string common = jobs.front().literal;

	cursor = "0";
	match = jobs.front().pattern;
	for (pass = 1; pass < jobs.size() && pass < kPatternsInPass; ++pass)
	{
		const std::string &literal = jobs[pass].literal;
		size_t length = 0;

		if (has_class(jobs.front()) || has_class(jobs[pass]))
			break;
		while (length < common.size() && length < literal.size() &&
		       common[length] == literal[length])
			++length;
		common.resize(length);
	}
	if (pass > 1)
		match = glob_escape(common) + "*";
}

bool
Sweep::wants(const Job &job, std::string_view key) const
{
	return pass == 1 || (begins_with(key, job.literal) && glob_match(job.pattern, key));
}

/* The next keys of the pass. */
void
Delivery::scan_for_jobs(const Channel &channel)
{
	std::string versions = std::string(pg::key_prefix) + "v:";
	std::string floor = floor_key(pg::key_prefix);
	Request request;

	if (sweep_.pass == 0)
		sweep_.begin_pass();
	request.add({"SCAN", sweep_.cursor, "MATCH", sweep_.match, "COUNT", "1000"});

	std::vector<Reply> replies = channel.run(request);

	expect_good(replies[0]);
	if (!replies[0].is_array() || replies[0].elements.size() != 2)
		throw Error(kProtocolViolation, "unexpected reply of Redis to SCAN");

	std::vector<std::string_view> found;
	std::vector<TagSet> sets;

	for (const Reply &key : replies[0].elements[1].elements)
	{
		bool removed = begins_with(key.text, versions) || key.text == floor;

		for (size_t i = 0; i < sweep_.pass && !removed; ++i)
		{
			const Sweep::Job &job = sweep_.jobs[i];

			if (!sweep_.wants(job, key.text))
				continue;
			if (job.tag_sets)
				sets.push_back({key.text, job.member_prefix});
			else
				found.push_back(key.text);
			removed = !job.tag_sets;
		}
	}

	Stream stream(channel);

	stream.add_many({"UNLINK"}, found);
	stream.finish();
	sweep_.sets.add(std::move(sets));
	sweep_.cursor = replies[0].elements[0].text;
	if (sweep_.cursor == "0")
	{
		sweep_.jobs.erase(sweep_.jobs.begin(),
		                  sweep_.jobs.begin() + static_cast<std::ptrdiff_t>(sweep_.pass));
		sweep_.pass = 0;
	}
}

/* Some steps further; at the end the rows are delivered like others. */
void
Delivery::continue_sweep(const Channel &channel, uint64 lsn)
{
	for (int step = 0; step < kSweepSteps && !sweep_.done(); ++step)
	{
		if (!sweep_.sets.done())
			sweep_.sets.step(channel);
		else
			scan_for_jobs(channel);
	}
	if (!sweep_.done())
		return;

	Plan plan(sweep_.rows.size());
	Taken taken;
	TagSetEmptier emptied;
	std::vector<ItemPointerData> tids;

	read_batch(&taken); /* for the epoch and the position of now */
	taken.insert_lsn = Max(taken.insert_lsn, lsn);
	for (const OutboxRow &row : sweep_.rows)
	{
		plan.add(row);
		tids.push_back(row.tid);
	}
	deliver(channel, plan, taken, false, emptied);
	acknowledge(plan, sweep_.file, tids, channel.server().incarnation);
	if (pg::WorkerSlot *slot = pg::my_worker_slot())
		pg::confirm_numbers(slot, {0, sweep_.last_number});
	sweep_ = Sweep();
}

} /* namespace cache_ext::invalidation */
