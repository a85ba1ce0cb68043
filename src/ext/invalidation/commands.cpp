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
#include "core/redis/refusal.hpp"
#include "pg/settings.hpp"

namespace cache_ext::invalidation {

using redis::Reply;
using redis::Request;

constexpr size_t kCommandsInPipeline = 4000;
constexpr int kExchangeMs = 5000;
constexpr size_t kRandomBytes = 4096;

std::string
printable(std::string_view text)
{
	std::string clean;

	for (char c : text.substr(0, 200))
		clean.push_back(
		    static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e ? '?' : c);
	return clean;
}

std::string
printable_name(std::string_view name)
{
	std::string_view prefix = pg::key_prefix != nullptr ? pg::key_prefix : "";
	std::string_view own = begins_with(name, prefix) ? name.substr(prefix.size()) : name;

	for (std::string_view each : {name, own})
		if (begins_with(each, kSessionPrefix))
			return std::string(kSessionPrefix) + "...";
	return printable(name);
}

bool
begins_with(std::string_view text, std::string_view start)
{
	return text.substr(0, start.size()) == start;
}

[[noreturn]] static void
refuse(const Reply &reply)
{
	std::string message = "Redis server \"" + pg::redis_name() +
	                      "\" refused an invalidation: " + printable(reply.text);

	if (redis::classify_refusal(reply.text) == redis::Refusal::kPermission)
		throw NotPermitted(kConnectionFailure, message);
	throw Error(kConnectionFailure, message);
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
	if (expect == Expect::kKept)
		kept_.push_back(std::move(reply));
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

/* Random bytes that nobody has had yet; drawn in blocks, since a draw costs as much as many bytes.
 */
static std::string
take_random(size_t size)
{
	static std::string drawn;

	if (drawn.size() < size)
	{
		drawn.resize(std::max(size, kRandomBytes));
		if (!pg_strong_random(drawn.data(), drawn.size()))
		{
			drawn.clear();
			throw Error(kConnectionFailure, "could not draw random versions");
		}
	}

	std::string taken = drawn.substr(drawn.size() - size);

	drawn.resize(drawn.size() - size);
	return taken;
}

Versions::Versions(const Plan &plan)
    : plan_(plan), random_(take_random(plan.touches.size() * cache::kNonceSize))
{
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
