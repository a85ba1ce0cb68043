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

constexpr int kSweepSteps = 8; /* SCANs in one turn */

void
Delivery::begin_sweep(const std::vector<const OutboxRow *> &rows, Oid file)
{
	std::string prefix = glob_escape(pg::key_prefix);
	std::set<std::tuple<std::string, bool, std::string>> wanted;

	sweep_.file = file;
	for (const OutboxRow *row : rows)
	{
		sweep_.payloads.emplace_back(row->payload, row->length);
		sweep_.rows.push_back(*row);
		sweep_.places.insert(place_of(row->tid));
	}
	for (size_t i = 0; i < sweep_.rows.size(); ++i)
	{
		sweep_.rows[i].payload = sweep_.payloads[i].data();

		std::string_view rest = sweep_.payloads[i];
		ItemKind kind;
		std::string_view body;

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
		sweep_.jobs.push_back({pattern, tag_sets, member_prefix});
	sweep_.cursor = "0";
}

/* Some steps further; at the end the rows are delivered like others. */
void
Delivery::continue_sweep(const Channel &channel, uint64 lsn)
{
	std::string versions = std::string(pg::key_prefix) + "v:";
	std::string floor = floor_key(pg::key_prefix);

	for (int step = 0; step < kSweepSteps && !sweep_.jobs.empty(); ++step)
	{
		const Sweep::Job &job = sweep_.jobs.front();
		Request request;

		request.add({"SCAN", sweep_.cursor, "MATCH", job.pattern, "COUNT", "1000"});

		std::vector<Reply> replies = channel.run(request);

		expect_good(replies[0]);
		if (!replies[0].is_array() || replies[0].elements.size() != 2)
			throw Error(kProtocolViolation, "unexpected reply of Redis to SCAN");

		std::vector<std::string> found;

		for (const Reply &key : replies[0].elements[1].elements)
			if (!begins_with(key.text, versions) && key.text != floor)
				found.push_back(key.text);
		if (job.tag_sets)
		{
			std::vector<TagSet> sets;

			for (const std::string &key : found)
				sets.push_back({key, job.member_prefix});
			empty_tag_sets(channel, sets);
		}
		else
		{
			Stream stream(channel);

			stream.add_many({"UNLINK"}, found);
			stream.finish();
		}
		sweep_.cursor = replies[0].elements[0].text;
		if (sweep_.cursor == "0")
			sweep_.jobs.pop_front();
	}
	if (!sweep_.jobs.empty())
		return;

	Plan plan(sweep_.rows.size());
	Taken taken;
	std::vector<ItemPointerData> tids;

	read_batch(&taken); /* for the epoch and the position of now */
	taken.insert_lsn = Max(taken.insert_lsn, lsn);
	for (const OutboxRow &row : sweep_.rows)
	{
		plan.add(row);
		tids.push_back(row.tid);
	}
	deliver(channel, plan, taken, false);
	acknowledge(plan, sweep_.file, tids, channel.server().incarnation);
	if (pg::WorkerSlot *slot = pg::my_worker_slot())
		pg::confirm_numbers(slot, {0, sweep_.last_number});
	sweep_ = Sweep();
}

} /* namespace cache_ext::invalidation */
