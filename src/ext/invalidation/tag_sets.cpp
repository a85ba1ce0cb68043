/*-------------------------------------------------------------------------
 *
 * tag_sets.cpp
 *		Emptying sets of keys together with their members, in bounded steps.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/tag_sets.hpp"

#include <algorithm>
#include <iterator>

#include "core/base/error.hpp"

namespace cache_ext::invalidation {

using redis::Reply;

/* What one round trip looks at: so many sets, and about so many members of them together. */
constexpr size_t kSetsAtOnce = 64;
constexpr size_t kMembersAtOnce = 8000;
constexpr size_t kMostMembersOfSet = 1000;

/* A round trip costs a budget as much as so many members. */
constexpr size_t kStepWorth = 50;

void
TagSetEmptier::add(std::vector<TagSet> sets)
{
	waiting_.insert(waiting_.end(), std::make_move_iterator(sets.begin()),
	                std::make_move_iterator(sets.end()));
}

void
TagSetEmptier::ask_which(Stream *stream)
{
	Names keys;

	keys.reserve(waiting_.size());
	for (const TagSet &set : waiting_)
		keys.push_back(set.key);
	stream->add_many({"EXISTS"}, keys, Stream::Expect::kKept);
}

void
TagSetEmptier::answered(const std::vector<Reply> &counts)
{
	std::deque<TagSet> asked = std::move(waiting_);

	waiting_.clear();
	for (size_t i = 0; i < asked.size(); ++i)
	{
		const Reply &count = counts.at(i / kNamesInCommand);

		expect_good(count);
		if (count.kind != Reply::Kind::kInteger || count.integer != 0)
			waiting_.push_back(std::move(asked[i]));
	}
}

void
TagSetEmptier::ask(Stream *stream)
{
	for (; open_.size() < kSetsAtOnce && !waiting_.empty(); waiting_.pop_front())
		open_.push_back({std::move(waiting_.front()), "0"});

	size_t share = kMembersAtOnce / std::max<size_t>(open_.size(), 1);
	std::string count = std::to_string(std::min(share, kMostMembersOfSet));

	for (const Open &open : open_)
		stream->add({"SSCAN", open.set.key, open.cursor, "COUNT", count}, Stream::Expect::kKept);
}

/*
 * Members are removed before they leave the set, so that a crash in between finds
 * them again; and afterwards, since an application may have put a key back in
 * between whose membership we then took.
 */
void
TagSetEmptier::remove_found(Stream *stream)
{
	std::vector<Open> left;

	for (size_t i = 0; i < replies_.size(); ++i)
	{
		const Reply &reply = replies_[i];
		Open &open = open_[i];

		if (reply.is_error() && begins_with(reply.text, "WRONGTYPE"))
			continue; /* a key of that name which is no set */
		expect_good(reply);
		if (!reply.is_array() || reply.elements.size() != 2)
			throw Error(kProtocolViolation, "unexpected reply of Redis to SSCAN");

		const std::string &prefix = open.set.member_prefix;
		std::vector<std::string_view> members;
		std::vector<std::string> names;

		for (const Reply &member : reply.elements[1].elements)
		{
			members.push_back(member.text);
			names.push_back(member.text);
			if (!prefix.empty() && !begins_with(member.text, prefix))
				names.push_back(prefix + member.text);
		}
		spent_ += members.size();
		stream->add_many({"UNLINK"}, names);
		stream->add_many({"SREM", open.set.key}, members);
		stream->add_many({"UNLINK"}, names);
		if (reply.elements[0].text != "0")
			left.push_back({std::move(open.set), reply.elements[0].text});
	}
	if (!replies_.empty())
		open_ = std::move(left);
	replies_.clear();
}

void
TagSetEmptier::step(const Channel &channel)
{
	Stream stream(channel);

	spent_ += kStepWorth;
	remove_found(&stream);
	ask(&stream);
	stream.finish();
	replies_ = stream.take_kept();
}

std::vector<TagSet>
TagSetEmptier::rest() const
{
	std::vector<TagSet> rest(waiting_.begin(), waiting_.end());

	for (const Open &open : open_)
		rest.push_back(open.set);
	return rest;
}

} /* namespace cache_ext::invalidation */
