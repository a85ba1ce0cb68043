/*-------------------------------------------------------------------------
 *
 * commands.cpp
 *		Commands of a delivery on their way to Redis.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/commands.hpp"

#include <algorithm>
#include <cstdio>

#include "core/base/error.hpp"
#include "core/cache/envelope.hpp"
#include "core/invalidation/bucket.hpp"
#include "pg/settings.hpp"

namespace cache_ext::invalidation {

using redis::Reply;
using redis::Request;

constexpr size_t kCommandsInPipeline = 4000;
constexpr int kExchangeMs = 5000;

/* Error texts come from outside: bounded, one line, printable. */
static std::string
printable(std::string_view text)
{
	std::string clean;

	for (char c : text.substr(0, 200))
		clean.push_back(
		    static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e ? '?' : c);
	return clean;
}

bool
begins_with(std::string_view text, std::string_view start)
{
	return text.substr(0, start.size()) == start;
}

[[noreturn]] static void
refuse(const Reply &reply)
{
	throw Error(kConnectionFailure, "Redis server \"" + pg::redis_name() +
	                                    "\" refused an invalidation: " + printable(reply.text));
}

void
expect_good(const Reply &reply)
{
	if (reply.is_error())
		refuse(reply);
}

std::vector<Reply>
Channel::run(const Request &request) const
{
	pg::ExchangeOptions options;

	if (request.empty())
		return {};
	options.timeout_ms = kExchangeMs;
	options.ignore_backoff = true;
	if (pg::redis_connection() != server_.connection)
		throw Error(kConnectionFailure, "connection to Redis was replaced during a delivery");

	std::vector<Reply> replies = pg::redis_exchange(request, options);

	if (pg::redis_connection() != server_.connection)
		throw Error(kConnectionFailure, "connection to Redis was replaced during a delivery");
	return replies;
}

void
Stream::add(const std::vector<std::string_view> &arguments, Expect expect)
{
	request_.add(arguments);
	expected_.push_back(expect);
	if (expected_.size() >= kCommandsInPipeline)
		finish();
}

void
Stream::finish()
{
	std::vector<Reply> replies = channel_.run(request_);

	for (size_t i = 0; i < replies.size(); ++i)
		judge(std::move(replies[i]), expected_[i]);
	request_ = Request();
	expected_.clear();
}

void
Stream::judge(Reply reply, Expect expect)
{
	if (expect == Expect::kScan)
		scans_.push_back(std::move(reply));
	else if (expect == Expect::kVersion && reply.is_error() && begins_with(reply.text, "OOM"))
		no_memory_ = true;
	else if (expect != Expect::kMessage || !reply.is_error() || !begins_with(reply.text, "NOPERM"))
		expect_good(reply);
}

static std::string
lsn_text(uint64 lsn)
{
	char text[32];

	snprintf(text, sizeof(text), "%X/%X", static_cast<uint32>(lsn >> 32), static_cast<uint32>(lsn));
	return text;
}

Versions::Versions(const Plan &plan)
    : plan_(plan), random_(plan.touches.size() * cache::kNonceSize, '\0')
{
	if (!pg_strong_random(random_.data(), random_.size()))
		throw Error(kConnectionFailure, "could not draw random versions");
}

std::string_view
Versions::nonce(size_t number) const
{
	return std::string_view(random_).substr(number * cache::kNonceSize, cache::kNonceSize);
}

std::string_view
Versions::find(uint32 bucket) const
{
	auto found = std::lower_bound(
	    plan_.touches.begin(), plan_.touches.end(), bucket,
	    [](const Plan::Touch &touch, uint32 number) { return touch.bucket < number; });

	if (found == plan_.touches.end() || found->bucket != bucket)
		return {};
	return nonce(static_cast<size_t>(found - plan_.touches.begin()));
}

std::vector<std::string>
Versions::keys() const
{
	std::vector<std::string> keys;

	keys.reserve(plan_.touches.size());
	for (const Plan::Touch &touch : plan_.touches)
		keys.push_back(version_key(pg::key_prefix, touch.bucket));
	return keys;
}

void
Versions::send(Stream *stream, uint64 lsn) const
{
	std::vector<std::string> names = keys();

	stream->add({"SET", floor_key(pg::key_prefix), lsn_text(lsn)}, Stream::Expect::kVersion);
	for (size_t i = 0; i < names.size(); i += kNamesInCommand)
	{
		std::vector<std::string_view> arguments = {"MSET"};

		for (size_t n = i; n < std::min(names.size(), i + kNamesInCommand); ++n)
		{
			arguments.push_back(names[n]);
			arguments.push_back(nonce(n));
		}
		stream->add(arguments, Stream::Expect::kVersion);
	}
}

void
Versions::remove(Stream *stream) const
{
	stream->add_many({"UNLINK"}, std::vector<std::string>{floor_key(pg::key_prefix)});
	stream->add_many({"UNLINK"}, keys());
}

void
add_scan(Stream *stream, std::string_view set, std::string_view cursor)
{
	stream->add({"SSCAN", set, cursor, "COUNT", "1000"}, Stream::Expect::kScan);
}

void
empty_tag_sets(const Channel &channel, const std::vector<TagSet> &sets, std::vector<Reply> replies)
{
	std::vector<size_t> open(sets.size()); /* whose replies they are */

	for (size_t i = 0; i < open.size(); ++i)
		open[i] = i;
	while (!open.empty())
	{
		std::vector<size_t> more;
		Stream stream(channel);

		for (size_t i = 0; i < open.size(); ++i)
		{
			const Reply &reply = replies[i];
			const std::string &set = sets[open[i]].key;
			const std::string &prefix = sets[open[i]].member_prefix;

			if (reply.is_error() && begins_with(reply.text, "WRONGTYPE"))
				continue; /* a key of that name which is no set */
			expect_good(reply);
			if (!reply.is_array() || reply.elements.size() != 2)
				throw Error(kProtocolViolation, "unexpected reply of Redis to SSCAN");

			std::vector<std::string> members;
			std::vector<std::string> names;

			for (const Reply &member : reply.elements[1].elements)
			{
				members.push_back(member.text);
				names.push_back(member.text);
				if (!prefix.empty() && !begins_with(member.text, prefix))
					names.push_back(prefix + member.text);
			}

			/*
			 * Removed before they leave the set, so that a crash in between finds
			 * them again; and afterwards, since an application may have put a key
			 * back in between whose membership we then took.
			 */
			stream.add_many({"UNLINK"}, names);
			stream.add_many({"SREM", set}, members);
			stream.add_many({"UNLINK"}, names);
			if (reply.elements[0].text != "0")
			{
				add_scan(&stream, set, reply.elements[0].text);
				more.push_back(open[i]);
			}
		}
		stream.finish();
		replies = stream.take_scans();
		open = std::move(more);
	}
}

void
empty_tag_sets(const Channel &channel, const std::vector<TagSet> &sets)
{
	Stream stream(channel);

	for (const TagSet &set : sets)
		add_scan(&stream, set.key, "0");
	stream.finish();
	empty_tag_sets(channel, sets, stream.take_scans());
}

FullNames::FullNames(const Names &names)
{
	std::string_view prefix = pg::key_prefix;
	size_t size = 0;

	if (prefix.empty())
	{
		names_ = names;
		return;
	}
	for (std::string_view name : names)
		size += prefix.size() + name.size();
	bytes_.reserve(size); /* so that nothing moves */
	names_.reserve(names.size());
	for (std::string_view name : names)
	{
		size_t start = bytes_.size();

		bytes_.append(prefix).append(name);
		names_.push_back(std::string_view(bytes_).substr(start));
	}
}

std::vector<TagSet>
full_sets(const std::vector<TagSet> &sets)
{
	std::vector<TagSet> full;

	full.reserve(sets.size());
	for (const TagSet &set : sets)
		full.push_back({pg::key_prefix + set.key, pg::key_prefix + set.member_prefix});
	return full;
}

} /* namespace cache_ext::invalidation */
