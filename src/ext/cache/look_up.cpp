/*-------------------------------------------------------------------------
 *
 * look_up.cpp
 *		The Redis tier: reading entries; see tier.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include <algorithm>
#include <optional>

#include "core/cache/envelope.hpp"
#include "core/invalidation/bucket.hpp"
#include "ext/cache/audience.hpp"
#include "ext/cache/cache.hpp"
#include "ext/cache/conversation.hpp"
#include "ext/cache/memory.hpp"
#include "ext/cache/tier.hpp"
#include "ext/invalidation/fence.hpp"
#include "ext/invalidation/outbox.hpp"
#include "ext/invalidation/told.hpp"
#include "pg/guard.hpp"

extern "C" {
#include "mb/pg_wchar.h"
#include "utils/snapmgr.h"
}

namespace cache_ext::cache {

using redis::Reply;

/* Ascending, each once. */
static void
arrange(std::vector<uint32> *numbers)
{
	std::sort(numbers->begin(), numbers->end());
	numbers->erase(std::unique(numbers->begin(), numbers->end()), numbers->end());
}

static std::vector<uint32>
buckets_among(std::vector<uint32> fine_buckets)
{
	for (uint32 &number : fine_buckets)
		number %= invalidation::kBucketCount;
	arrange(&fine_buckets);
	return fine_buckets;
}

std::vector<uint32>
buckets_of(std::string_view key, const std::vector<std::string_view> &tags)
{
	return buckets_among(
	    numbers_of_names(key, tags, invalidation::fine_bucket_of, invalidation::kFineBucketOfAll));
}

Trust
look_at_outbox(const std::vector<uint32> &buckets)
{
	const uint32 *numbers = buckets.data();
	int count = static_cast<int>(buckets.size());
	Trust trust{};

	pg::call([&] {
		/* Pushed, not only taken: catalog access below may take snapshots of its own. */
		PushActiveSnapshot(GetLatestSnapshot());
		trust.trusted = !invalidation::outbox_pending(numbers, count, GetActiveSnapshot());
		if (trust.trusted)
			trust.state = invalidation::read_redis_state(GetActiveSnapshot());
		PopActiveSnapshot();
	});
	return trust;
}

/* The same, of readers: where it is known that Redis has been told, nobody looks. */
static Trust
trust_for(const std::vector<uint32> &buckets, std::vector<uint32> &&generations)
{
	invalidation::Told told(std::move(generations));
	Trust known{};

	if (pg::call([&] { return told.is_known(&known.state); }))
	{
		known.trusted = known.remembered = true;
		return known;
	}
	pg::call([&] { told.begin_look(); });

	Trust trust = look_at_outbox(buckets);

	if (trust.trusted)
		pg::call([&] { told.end_look(trust.state); });
	return trust;
}

/* -------------------------------------------------------------------------
 * Reading
 * -------------------------------------------------------------------------
 */

static bool
is_valid_text(std::string_view bytes)
{
	return bytes.find('\0') == std::string_view::npos &&
	       pg_verify_mbstr(GetDatabaseEncoding(), bytes.data(), static_cast<int>(bytes.size()),
	                       true);
}

static bool
is_for_us(const Envelope &envelope)
{
	return envelope.audience == kEverybody ||
	       envelope.audience == current_audience(envelope.by_settings);
}

/* A key, the tags it is believed to have, and what it depends on then. */
struct Question
{
	std::string_view key;
	std::vector<std::string_view> tags;
	std::vector<uint32> buckets;
	std::vector<uint32> generations;
	MemoryToken token; /* where a hit is to be kept in memory */
};

static Question
question(std::string_view key, std::vector<std::string_view> &&tags, bool keep)
{
	std::vector<uint32> generations =
	    numbers_of_names(key, tags, invalidation::fine_bucket_of, invalidation::kFineBucketOfAll);
	std::vector<uint32> buckets = buckets_among(generations);

	for (uint32 &number : generations)
		number = invalidation::generation_of_fine_bucket(number);

	/* The token comes first: what the outbox shows no longer must be in the generations. */
	MemoryToken token = keep ? memory_token(std::vector<uint32>(generations)) : MemoryToken();

	return {key, std::move(tags), std::move(buckets), std::move(generations), std::move(token)};
}

/* One look at one key. */
struct Attempt
{
	Lookup lookup;
	bool other_tags = false; /* the entry has tags that were not looked at */
};

/* What is known before the entries themselves are judged. */
struct Circumstances
{
	Trust trust;
	pg::RedisServer server;
};

/* A value without envelope: another application's, or stored for one. */
static void
judge_bare(Attempt *attempt)
{
	std::string_view bytes = attempt->lookup.storage.text;

	if (!is_valid_text(bytes))
	{
		pg::call([&] {
			ereport(DEBUG1, (errmsg_internal("a value in Redis is not text in the database's "
			                                 "encoding")));
		});
		return;
	}
	attempt->lookup.bare = true;
	attempt->lookup.outcome = Lookup::Outcome::kHit;
}

static bool
is_over(const Age &age)
{
	return age.fresh_ms > 0 && age.made_at > 0 && now_ms() >= age.made_at + age.fresh_ms;
}

static void
judge_envelope(const Envelope &envelope, const Circumstances &now,
               const std::optional<Digest> &versions, const Question &question, Attempt *attempt)
{
	Lookup &lookup = attempt->lookup;

	if (envelope.key != full_key(question.key))
		return;
	if (envelope.token.name_space != current_namespace(now.trust.state.epoch))
	{
		if (now.trust.remembered)
			invalidation::forget_last_look(); /* somebody may know a later epoch */
		return;
	}
	if (envelope.token.incarnation != now.server.incarnation || !is_for_us(envelope))
		return;
	if (envelope.tags != question.tags &&
	    buckets_of(question.key, envelope.tags) != question.buckets)
	{
		attempt->other_tags = true;
		return;
	}
	if (!versions || envelope.token.versions != *versions || !is_valid_text(envelope.payload))
		return;
	/* The payload is the envelope's last part. */
	lookup.value_at = lookup.storage.text.size() - envelope.payload.size();
	lookup.age.made_at = static_cast<int64>(envelope.made_at);
	lookup.age.fresh_ms = static_cast<int64>(envelope.fresh_ms);
	/* Made in the future: by a server whose clock is ahead, and no later than now. */
	if (lookup.age.fresh_ms > 0)
		lookup.age.made_at = std::min(lookup.age.made_at, now_ms());
	lookup.outcome = is_over(lookup.age) ? Lookup::Outcome::kStale : Lookup::Outcome::kHit;
}

static void
judge(Reply &&value, const Circumstances &now, const std::optional<Digest> &versions,
      const Question &question, Attempt *attempt)
{
	attempt->lookup.outcome = Lookup::Outcome::kMiss;
	if (versions)
		attempt->lookup.seen = {now.server.connection, now.trust.state.epoch,
		                        now.server.incarnation, *versions, question.buckets};
	if (!value.is_string())
		return;

	/* The envelope's views point into the storage where it is now. */
	attempt->lookup.storage = std::move(value);
	if (auto envelope = decode(attempt->lookup.storage.text))
		judge_envelope(*envelope, now, versions, question, attempt);
	else if (!looks_like_envelope(attempt->lookup.storage.text))
		judge_bare(attempt);
}

/* A hit goes into the memory tier as well, for no longer than Redis keeps it. */
static void
keep_in_memory(const Question &question, const Lookup &found)
{
	if (!found.hit() || found.bare || question.token.buckets.empty() || found.age.left_ms <= 0)
		return;

	auto envelope = decode(found.storage.text);
	MemoryFacts facts;

	facts.keep_until = GetCurrentTimestamp() + found.age.left_ms * 1000;
	facts.expires_at = facts.keep_until;
	if (found.age.fresh_ms > 0)
		facts.expires_at -=
		    std::max<int64>(0, found.age.left_ms -
		                           (found.age.made_at + found.age.fresh_ms - now_ms())) *
		    1000;
	facts.audience = envelope->audience;
	facts.by_settings = envelope->by_settings;
	if (memory_token_covers(question.token, question.key, envelope->tags))
		(void) memory_set(question.token, question.key, envelope->tags, found.value(), facts);
}

/*
 * Which of the questions may be put to Redis?  One look at the outbox for all of
 * them is the rule; only when it finds something each is looked at for itself.
 */
static std::vector<size_t>
trusted_ones(const std::vector<Question> &questions, std::vector<uint32> *buckets, Trust *trust)
{
	std::vector<size_t> trusted;
	std::vector<uint32> generations;

	for (size_t i = 0; i < questions.size(); ++i)
	{
		const Question &each = questions[i];

		trusted.push_back(i);
		buckets->insert(buckets->end(), each.buckets.begin(), each.buckets.end());
		generations.insert(generations.end(), each.generations.begin(), each.generations.end());
	}
	if (questions.size() > 1)
	{
		arrange(buckets);
		arrange(&generations);
	}
	*trust = trust_for(*buckets, std::move(generations));
	if (trust->trusted)
		return trusted;
	trusted.clear();
	for (size_t i = 0; i < questions.size() && questions.size() > 1; ++i)
	{
		Trust alone =
		    trust_for(questions[i].buckets, std::vector<uint32>(questions[i].generations));

		if (!alone.trusted)
			continue;
		*trust = alone;
		trusted.push_back(i);
	}
	return trusted;
}

/* The versions of a question among those of all. */
static std::optional<Digest>
versions_of(const Question &question, const std::vector<uint32> &buckets, const Reply &reply,
            size_t first)
{
	VersionDigester digester;

	for (uint32 bucket : question.buckets)
	{
		size_t at = static_cast<size_t>(std::lower_bound(buckets.begin(), buckets.end(), bucket) -
		                                buckets.begin());
		const Reply &version = reply.elements[first + at];

		if (!version.is_string())
			return std::nullopt;
		digester.add(bucket, version.text);
	}
	return digester.finish();
}

/* The answer to an MGET of so many names?  Anything else comes from no Redis. */
static bool
are_values(const Reply &reply, size_t names)
{
	return reply.is_array() && reply.elements.size() == names &&
	       std::all_of(reply.elements.begin(), reply.elements.end(),
	                   [](const Reply &each) { return each.is_nil() || each.is_string(); });
}

static std::vector<Attempt>
attempt(const std::vector<Question> &questions, bool with_left)
{
	std::vector<Attempt> results(questions.size());
	std::vector<uint32> buckets;
	Circumstances now;

	for (Attempt &result : results)
		result.lookup.outcome = Lookup::Outcome::kUnavailable;

	std::vector<size_t> asked = trusted_ones(questions, &buckets, &now.trust);

	if (asked.empty())
		return results;

	std::vector<std::string> names;

	names.reserve(asked.size() + buckets.size());
	for (size_t i : asked)
		names.push_back(full_key(questions[i].key));

	size_t keys = names.size();

	add_version_keys(&names, buckets);

	redis::Request request = mget(names);

	for (size_t i = 0; with_left && i < keys; ++i)
		request.add({"PTTL", names[i]});

	auto replies = ask(request, &now.server);

	if (!replies || !now.server.identified || !knows_deliveries(now.trust.state, now.server))
	{
		invalidation::forget_last_look();
		return results;
	}

	Reply &reply = replies->front();

	if (!are_values(reply, names.size()))
	{
		if (reply.is_error())
			pg::redis_note_refusal(reply);
		else
			pg::redis_disconnect();
		return results;
	}
	for (size_t n = 0; n < keys; ++n)
	{
		const Question &question = questions[asked[n]];

		judge(std::move(reply.elements[n]), now, versions_of(question, buckets, reply, keys),
		      question, &results[asked[n]]);
		if (with_left)
			results[asked[n]].lookup.age.left_ms = (*replies)[1 + n].integer;
		keep_in_memory(question, results[asked[n]].lookup);
	}
	return results;
}

/*
 * The entry itself says which tags it has.  When those are not the ones asked
 * for, everything starts again with the entry's list, the look at the outbox
 * included, because that must come before the versions are read.
 */
static std::vector<Lookup>
look_up(std::vector<Question> &&questions, bool with_left)
{
	std::vector<Attempt> attempts = attempt(questions, with_left);
	std::vector<Question> again;
	std::vector<size_t> places;
	std::vector<Lookup> found;

	for (size_t i = 0; i < attempts.size(); ++i)
		if (attempts[i].other_tags)
		{
			again.push_back(question(questions[i].key, attempts[i].lookup.tags(),
			                         !questions[i].token.buckets.empty()));
			places.push_back(i);
		}
	if (!again.empty())
	{
		std::vector<Attempt> second = attempt(again, with_left);

		for (size_t i = 0; i < second.size(); ++i)
			attempts[places[i]] = std::move(second[i]);
	}
	for (Attempt &each : attempts)
		found.push_back(std::move(each.lookup));
	return found;
}

Lookup
look_up(std::string_view key, const std::vector<std::string_view> &tags)
{
	bool keep = memory_available();
	std::vector<Question> questions;

	questions.push_back(question(key, std::vector<std::string_view>(tags), keep));
	return std::move(look_up(std::move(questions), keep).front());
}

std::vector<Lookup>
look_up_many(const std::vector<std::string_view> &keys, bool with_left)
{
	std::vector<Question> questions;

	for (std::string_view key : keys)
		questions.push_back(question(key, {}, false));
	return look_up(std::move(questions), with_left);
}

std::vector<std::string_view>
Lookup::tags() const
{
	auto envelope = decode(storage.text);

	return envelope ? std::move(envelope->tags) : std::vector<std::string_view>();
}

} /* namespace cache_ext::cache */
