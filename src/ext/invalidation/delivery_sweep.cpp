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

/* What is looked for because of a row. */
static std::vector<Sweep::Job>
jobs_of(const OutboxRow &row)
{
	std::string prefix = glob_escape(pg::key_prefix);
	std::vector<Sweep::Job> jobs;
	std::string_view rest(row.payload, row.length);
	ItemKind kind;
	std::string_view body;
	auto add = [&](std::string pattern, bool tag_sets, std::string member_prefix) {
		std::string literal = glob_literal_prefix(pattern);

		jobs.push_back(
		    {std::move(pattern), std::move(literal), tag_sets, std::move(member_prefix)});
	};

	while (take_item(rest, kind, body))
	{
		if (kind == ItemKind::kPattern)
			add(prefix + std::string(body), false, "");
		else if (kind == ItemKind::kTagPattern)
			add(prefix + "tag:" + std::string(body), true, pg::key_prefix);
		else if (kind == ItemKind::kTagSetPattern)
		{
			size_t end = body.find(kPrefixEnd);
			std::string_view own = body.substr(0, end);

			add(prefix + std::string(own) + "tag:" + std::string(body.substr(end + 1)), true,
			    pg::key_prefix + glob_literal_prefix(own));
		}
	}
	return jobs;
}

void
Delivery::begin_sweep(const std::vector<const OutboxRow *> &rows, Oid file)
{
	std::set<std::tuple<std::string, bool, std::string>> known;
	Plan plan(rows.size());

	for (const OutboxRow *row : rows)
	{
		sweep_.add_row(*row, file);
		plan.add(*row);
		for (Sweep::Job &job : jobs_of(*row))
			if (known.emplace(job.pattern, job.tag_sets, job.member_prefix).second)
				sweep_.jobs.push_back(std::move(job));
	}
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

/*
 * Removes what a pass has found.  Where an ACL keeps one of the keys from us all
 * others go, and it is noted which patterns asked for it: their rows have to come
 * again.
 */
void
Delivery::unlink_found(const Channel &channel, const std::vector<std::string_view> &keys)
{
	try
	{
		Stream stream(channel);

		stream.add_many({"UNLINK"}, keys);
		stream.finish();
	}
	catch (const NotPermitted &)
	{
		Stream singly(channel);

		for (std::string_view key : keys)
			singly.add({"UNLINK", key}, Stream::Expect::kKept);
		singly.finish();

		std::vector<Reply> replies = singly.take_kept();

		for (size_t i = 0; i < replies.size(); ++i)
			try
			{
				expect_good(replies[i]);
			}
			catch (const NotPermitted &error)
			{
				for (size_t n = 0; n < sweep_.pass; ++n)
					if (!sweep_.jobs[n].tag_sets && sweep_.wants(sweep_.jobs[n], keys[i]))
						sweep_.forbidden.insert(sweep_.jobs[n].pattern);
				sweep_.refusal = error.message() + " (\"" + printable_name(keys[i]) + "\")";
			}
	}
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

	unlink_found(channel, found);
	sweep_.sets.add(std::move(sets));
	sweep_.cursor = replies[0].elements[0].text;
	if (sweep_.cursor == "0")
	{
		sweep_.jobs.erase(sweep_.jobs.begin(),
		                  sweep_.jobs.begin() + static_cast<std::ptrdiff_t>(sweep_.pass));
		sweep_.pass = 0;
	}
}

/* Some steps further. */
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
	if (sweep_.done())
		end_sweep(channel, lsn);
}

/* The rows are delivered like others, but for those whose patterns are forbidden. */
void
Delivery::end_sweep(const Channel &channel, uint64 lsn)
{
	Plan plan(sweep_.rows.size());
	Taken taken;
	TagSetEmptier emptied;
	std::vector<ItemPointerData> tids;
	auto is_forbidden = [this](const OutboxRow &row) {
		if (sweep_.forbidden.empty())
			return false;
		for (const Sweep::Job &job : jobs_of(row))
			if (sweep_.forbidden.count(job.pattern) != 0)
				return true;
		return false;
	};

	read_batch(&taken); /* for the epoch and the position of now */
	taken.insert_lsn = Max(taken.insert_lsn, lsn);
	for (const OutboxRow &row : sweep_.rows)
	{
		if (is_forbidden(row))
		{
			leave_alone(row);
			continue;
		}
		plan.add(row);
		tids.push_back(row.tid);
	}
	if (!tids.empty())
	{
		deliver(channel, plan, taken, false, emptied);
		acknowledge(plan, sweep_.file, tids, channel.server().incarnation);
	}
	if (tids.size() < sweep_.rows.size())
	{
		narrowing_ = true;
		throw NotPermitted(kConnectionFailure, sweep_.refusal);
	}
	if (pg::WorkerSlot *slot = pg::my_worker_slot())
		pg::confirm_numbers(slot, {0, sweep_.last_number});
	sweep_ = Sweep();
	sweep_limit_ = Min(sweep_limit_ * 2, static_cast<size_t>(kBatchRows));
}

} /* namespace cache_ext::invalidation */
