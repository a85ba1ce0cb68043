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
 * are delivered like the rest.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/delivery.hpp"

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "core/cache/envelope.hpp"
#include "core/invalidation/bucket.hpp"
#include "core/invalidation/event.hpp"
#include "core/invalidation/glob.hpp"
#include "core/invalidation/item.hpp"
#include "core/invalidation/server_info.hpp"
#include "ext/cache/cache.hpp"
#include "ext/invalidation/tables.hpp"
#include "ext/invalidation/watch_rows.hpp"
#include "pg/guard.hpp"
#include "pg/maintenance_lock.hpp"
#include "pg/memory.hpp"
#include "pg/redis_link.hpp"
#include "pg/settings.hpp"
#include "pg/vacuum.hpp"

extern "C" {
#include "access/transam.h"
#include "access/xlog.h"
#include "commands/dbcommands.h"
#include "common/pg_prng.h"
#include "mb/pg_wchar.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
}

namespace cache_ext::invalidation {

namespace {

using redis::Reply;
using redis::Request;

/* Bounds of a batch. */
constexpr int kBatchRows = 5000;
constexpr int kBatchItems = 20000;
constexpr size_t kBatchBytes = size_t{4} * 1024 * 1024;

/* Bounds of what leaves together. */
constexpr size_t kNamesInCommand = 500;
constexpr size_t kCommandsInPipeline = 4000;
constexpr size_t kNamesInEvent = 1000;

constexpr int kExchangeMs = 5000;
constexpr int kIdleMs = 1000;
constexpr int kPauseMs = 5; /* between batches: the first commit is told at once, the next soon */
constexpr int kFirstBackoffMs = 50;
constexpr int kLongestBackoffMs = 2000;
/* Bounds of what is merged at once while Redis is away, and what is worth it. */
constexpr int kMergeRows = 200 * 1000;
constexpr size_t kMergeBytes = size_t{32} * 1024 * 1024;
constexpr int kMergeAtLeast = 5000;
constexpr int kFailuresBeforeMerge = 3;
constexpr size_t kMergedRowBytes = 6000;
constexpr int kSweepSteps = 8;             /* SCANs in one turn */
constexpr int64 kDeadRows = 2000;          /* worth a vacuum */
constexpr uint32 kPagesOfSmallOutbox = 64; /* it need not be cut short */
constexpr int64 kServerCheckMs = 1000;

/* A name that was retained so recently needs no second row: purges keep this distance. */
constexpr int64 kRetainedWindowMs = 10 * 1000;
constexpr size_t kRetainedNames = 100 * 1000;
constexpr int64 kRetainAtLeastMs = 60 * 1000;
constexpr int64 kLossWindowMs = INT64CONST(3600) * 1000;
constexpr int64 kPurgeEveryMs = 10 * 1000;

/* After an unclean end somebody may have heard of numbers that were not written down. */
constexpr int64 kSeqJump = 1000 * 1000;

using Names = std::vector<std::string_view>;

/* In a transaction of its own; the body is plain C. */
template <typename Fn>
void
in_transaction(Fn &&body)
{
	MemoryContext context = CurrentMemoryContext;

	pg::call([&] {
		StartTransactionCommand();
		(void) pg::take_maintenance_lock(pg::Maintenance::kDelivery, true);
		PushActiveSnapshot(GetTransactionSnapshot()); /* for values stored out of line */
		body(context);
		PopActiveSnapshot();
		CommitTransactionCommand();
		MemoryContextSwitchTo(context);
	});
}

/* Rows as read_outbox() gives them, in plain memory. */
struct Taken
{
	OutboxRow *rows = nullptr;
	int count = 0;
	int capacity = 0;
	int items = 0;
	size_t bytes = 0;
	bool cut_short = false;
	bool lapse = false;
	Oid file = InvalidOid;
	uint64 insert_lsn = 0;
	RedisState state = {};
	FullTransactionId next_xid = {};
	int row_limit = kBatchRows;
	int item_limit = kBatchItems;
	size_t byte_limit = kBatchBytes;
};

bool
take_row(const OutboxRow &row, void *arg)
{
	auto *taken = static_cast<Taken *>(arg);

	if (row.bucket == kBucketOfLapse)
	{
		taken->lapse = true;
		return true;
	}
	if (taken->count >= taken->row_limit || taken->items >= taken->item_limit ||
	    taken->bytes >= taken->byte_limit)
	{
		taken->cut_short = true;
		return false;
	}
	if (taken->count == taken->capacity)
	{
		taken->capacity = Max(64, taken->capacity * 2);
		taken->rows = taken->rows == nullptr
		                  ? static_cast<OutboxRow *>(palloc(taken->capacity * sizeof(OutboxRow)))
		                  : static_cast<OutboxRow *>(
		                        repalloc(taken->rows, taken->capacity * sizeof(OutboxRow)));
	}
	taken->rows[taken->count++] = row;
	taken->items += row.items;
	taken->bytes += row.length;
	return true;
}

/*
 * What was committed asynchronously must be on disk before anybody is told:
 * after a crash the old value would be the true one, and its removal a rumour.
 */
void
flush_commits(const Taken &taken)
{
	XLogRecPtr limit = InvalidXLogRecPtr;
	TransactionId last = InvalidTransactionId;

	for (int i = 0; i < taken.count; ++i)
	{
		TransactionId xid = taken.rows[i].xmin;

		if (xid == last || !TransactionIdIsNormal(xid))
			continue;
		last = xid;
		limit = Max(limit, TransactionIdGetCommitLSN(xid));
	}
	if (!XLogRecPtrIsInvalid(limit))
		XLogFlush(limit);
}

uint64
full_xid(TransactionId xid, FullTransactionId next)
{
	if (!TransactionIdIsNormal(xid))
		return 0;

	uint32 epoch = EpochFromFullTransactionId(next);

	if (xid > XidFromFullTransactionId(next))
		--epoch;
	return static_cast<uint64>(epoch) << 32 | xid;
}

uint64
place_of(const ItemPointerData &tid)
{
	return static_cast<uint64>(ItemPointerGetBlockNumberNoCheck(&tid)) << 16 |
	       ItemPointerGetOffsetNumberNoCheck(&tid);
}

struct Value
{
	SetBody body;
	TransactionId xmin;
};

/* The items of some rows, without duplicates, sorted by what has to be done. */
struct Plan
{
	Names keys;
	Names tags;
	Names patterns;
	Names tag_patterns;
	std::vector<PublishBody> messages;
	std::vector<Value> values;
	bool all = false;
	std::set<uint32> buckets;
	std::vector<std::string_view> retained; /* encoded items */

	int64 items = 0;
	TransactionId newest = InvalidTransactionId;
	TimestampTz at = 0;

	/* Which transaction touches a bucket; frozen or several: kMany. */
	std::unordered_map<uint32, TransactionId> owners;
	static constexpr TransactionId kMany = InvalidTransactionId;

	void add(const OutboxRow &row)
	{
		std::string_view rest(row.payload, row.length);
		ItemKind kind;
		std::string_view body;

		items += row.items;
		at = Max(at, row.at);
		if (TransactionIdIsNormal(row.xmin) &&
		    (!TransactionIdIsNormal(newest) || TransactionIdFollows(row.xmin, newest)))
			newest = row.xmin;

		while (!rest.empty())
		{
			std::string_view whole = rest;

			if (!take_item(rest, kind, body))
				throw Error(kDataCorrupted, "outbox row cannot be read");
			whole = whole.substr(0, whole.size() - rest.size());
			add_item(kind, whole, body, row.xmin);
		}
	}

	bool touched_by_others(uint32 bucket, TransactionId xmin) const
	{
		auto owner = owners.find(bucket);

		return owner != owners.end() && owner->second != xmin;
	}

  private:
	std::unordered_set<std::string_view> seen_;

	void touch(uint32 bucket, TransactionId xmin)
	{
		TransactionId owner = TransactionIdIsNormal(xmin) ? xmin : kMany;
		auto [place, fresh] = owners.emplace(bucket, owner);

		if (!fresh && place->second != owner)
			place->second = kMany;
		buckets.insert(bucket);
	}

	void add_item(ItemKind kind, std::string_view whole, std::string_view body, TransactionId xmin)
	{
		bool fresh =
		    kind == ItemKind::kPublish || kind == ItemKind::kSet || seen_.insert(whole).second;
		PublishBody message;
		Value value = {{}, xmin};

		switch (kind)
		{
		case ItemKind::kKey:
			touch(bucket_of(NameKind::kKey, body), xmin);
			if (fresh)
				keys.push_back(body);
			break;
		case ItemKind::kTag:
			touch(bucket_of(NameKind::kTag, body), xmin);
			if (fresh)
				tags.push_back(body);
			break;
		case ItemKind::kPattern: {
			std::string literal = glob_literal_prefix(body);

			touch(has_prefix(literal) ? bucket_of(NameKind::kPrefix, prefix_of(literal))
			                          : kBucketOfAll,
			      xmin);
			if (fresh)
				patterns.push_back(body);
			break;
		}
		case ItemKind::kTagPattern:
			touch(kBucketOfAll, xmin);
			if (fresh)
				tag_patterns.push_back(body);
			break;
		case ItemKind::kClear:
			touch(kBucketOfAll, xmin);
			all = true;
			return;
		case ItemKind::kPublish:
			if (!message.read(body))
				throw Error(kDataCorrupted, "outbox row cannot be read");
			messages.push_back(message);
			return;
		case ItemKind::kSet:
			if (!value.body.read(body))
				throw Error(kDataCorrupted, "outbox row cannot be read");
			touch(bucket_of(NameKind::kKey, value.body.key), xmin);
			keys.push_back(value.body.key);
			values.push_back(value);
			return;
		case ItemKind::kLapse:
			return;
		}
		if (fresh)
			retained.push_back(whole);
	}
};

/* Does the row need a SCAN? */
bool
needs_sweep(const OutboxRow &row)
{
	std::string_view rest(row.payload, row.length);
	ItemKind kind;
	std::string_view body;

	while (take_item(rest, kind, body))
		if (kind == ItemKind::kPattern || kind == ItemKind::kTagPattern)
			return true;
	return false;
}

/* cache_clear() was called and the epoch has not been raised for it. */
bool
asks_for_epoch(const OutboxRow &row)
{
	std::string_view rest(row.payload, row.length);
	ItemKind kind;
	std::string_view body;

	return take_item(rest, kind, body) && kind == ItemKind::kClear && body.empty();
}

/* Error texts come from outside: bounded, one line, printable. */
std::string
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

[[noreturn]] void
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

/* All exchanges of a batch go over the connection that the batch began with. */
class Channel
{
  public:
	explicit Channel(const pg::RedisServer &server) : server_(server) {}

	std::vector<Reply> run(const Request &request) const
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

	const pg::RedisServer &server() const { return server_; }

  private:
	pg::RedisServer server_;
};

/*
 * Commands on their way, in pipelines of bounded length.  Most replies only have
 * to be no errors; finish() has read them all.
 */
class Stream
{
  public:
	enum class Expect
	{
		kGood,
		kVersion, /* a lack of memory is noted */
		kScan,    /* kept */
		kMessage  /* a channel that we may not use is none of the keys' business */
	};

	explicit Stream(const Channel &channel) : channel_(channel) {}

	void add(const std::vector<std::string_view> &arguments, Expect expect = Expect::kGood)
	{
		request_.add(arguments);
		expected_.push_back(expect);
		if (expected_.size() >= kCommandsInPipeline)
			finish();
	}

	/* One command for many names: UNLINK a b c, SREM set a b c. */
	void add_many(const std::vector<std::string_view> &command,
	              const std::vector<std::string> &names, Expect expect = Expect::kGood)
	{
		for (size_t i = 0; i < names.size(); i += kNamesInCommand)
		{
			std::vector<std::string_view> arguments = command;

			for (size_t n = i; n < std::min(names.size(), i + kNamesInCommand); ++n)
				arguments.push_back(names[n]);
			add(arguments, expect);
		}
	}

	void finish()
	{
		std::vector<Reply> replies = channel_.run(request_);

		for (size_t i = 0; i < replies.size(); ++i)
			judge(std::move(replies[i]), expected_[i]);
		request_ = Request();
		expected_.clear();
	}

	bool no_memory() const { return no_memory_; }
	std::vector<Reply> take_scans() { return std::move(scans_); }

  private:
	void judge(Reply reply, Expect expect)
	{
		if (expect == Expect::kScan)
			scans_.push_back(std::move(reply));
		else if (expect == Expect::kVersion && reply.is_error() && begins_with(reply.text, "OOM"))
			no_memory_ = true;
		else if (expect != Expect::kMessage || !reply.is_error() ||
		         !begins_with(reply.text, "NOPERM"))
			expect_good(reply);
	}

	const Channel &channel_;
	Request request_;
	std::vector<Expect> expected_;
	std::vector<Reply> scans_;
	bool no_memory_ = false;
};

std::string
lsn_text(uint64 lsn)
{
	char text[32];

	snprintf(text, sizeof(text), "%X/%X", static_cast<uint32>(lsn >> 32), static_cast<uint32>(lsn));
	return text;
}

/* Floor, then new versions. */
void
add_versions(Stream *stream, const std::set<uint32> &buckets, uint64 lsn,
             std::map<uint32, std::string> *nonces)
{
	std::string prefix = pg::key_prefix;
	std::string random(buckets.size() * cache::kNonceSize, '\0');
	std::vector<std::string> names;
	std::vector<std::string_view> fresh;

	if (!pg_strong_random(random.data(), random.size()))
		throw Error(kConnectionFailure, "could not draw random versions");
	for (uint32 bucket : buckets)
	{
		fresh.push_back(
		    std::string_view(random).substr(fresh.size() * cache::kNonceSize, cache::kNonceSize));
		names.push_back(version_key(prefix, bucket));
		(*nonces)[bucket] = fresh.back();
	}
	stream->add({"SET", floor_key(prefix), lsn_text(lsn)}, Stream::Expect::kVersion);
	for (size_t i = 0; i < names.size(); i += kNamesInCommand)
	{
		std::vector<std::string_view> arguments = {"MSET"};

		for (size_t n = i; n < std::min(names.size(), i + kNamesInCommand); ++n)
		{
			arguments.push_back(names[n]);
			arguments.push_back(fresh[n]);
		}
		stream->add(arguments, Stream::Expect::kVersion);
	}
}

/*
 * The same for a Redis without memory.  It refuses to write but never to remove,
 * and a missing version voids what was stored under it as well: the next reader
 * makes a random one.
 */
void
remove_versions(Stream *stream, const std::set<uint32> &buckets)
{
	std::string prefix = pg::key_prefix;
	std::vector<std::string> names = {floor_key(prefix)};

	for (uint32 bucket : buckets)
		names.push_back(version_key(prefix, bucket));
	stream->add_many({"UNLINK"}, names);
}

void
add_scan(Stream *stream, std::string_view set, std::string_view cursor)
{
	stream->add({"SSCAN", set, cursor, "COUNT", "1000"}, Stream::Expect::kScan);
}

/*
 * Members of these sets go, and with the last one the set itself.  replies are
 * those to the first scan of each.
 */
void
empty_tag_sets(const Channel &channel, const std::vector<std::string> &sets,
               std::vector<Reply> replies)
{
	std::string prefix = pg::key_prefix;
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
			const std::string &set = sets[open[i]];

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
empty_tag_sets(const Channel &channel, const std::vector<std::string> &sets)
{
	Stream stream(channel);

	for (const std::string &set : sets)
		add_scan(&stream, set, "0");
	stream.finish();
	empty_tag_sets(channel, sets, stream.take_scans());
}

std::vector<std::string>
full_names(const Names &names, std::string_view between = {})
{
	std::vector<std::string> full;

	full.reserve(names.size());
	for (std::string_view name : names)
		full.push_back(std::string(pg::key_prefix).append(between).append(name));
	return full;
}

/* Buckets of an entry, ascending. */
std::set<uint32>
entry_buckets(const SetBody &entry)
{
	std::set<uint32> buckets = {bucket_of(NameKind::kKey, entry.key), kBucketOfAll};
	std::string_view tags = entry.tags;
	std::string_view tag;

	if (has_prefix(entry.key))
		buckets.insert(bucket_of(NameKind::kPrefix, prefix_of(entry.key)));
	while (take_bytes(tags, tag))
		buckets.insert(bucket_of(NameKind::kTag, tag));
	return buckets;
}

/* A sweep over the keys of Redis for the patterns of some rows. */
struct Sweep
{
	struct Job
	{
		std::string pattern; /* as SCAN takes it */
		bool tag_sets;       /* what it finds are sets of keys */
	};

	std::vector<OutboxRow> rows;
	std::vector<std::string> payloads;
	Oid file = InvalidOid;
	std::deque<Job> jobs;
	std::string cursor = "0";
	std::unordered_set<uint64> places;

	bool active() const { return !rows.empty(); }
};

class Delivery
{
  public:
	DeliveryTurn turn();
	void finish();
	void vacuum(bool idle);

  private:
	void load();
	void read_batch(Taken *taken);
	void raise_epoch(const Taken &taken);
	void adopt_server(const pg::RedisServer &server, const RedisState &state);
	bool is_elsewhere(const RedisState &state) const;
	void check_server();
	void begin_sweep(const std::vector<const OutboxRow *> &rows, Oid file);
	void continue_sweep(const Channel &channel, uint64 lsn);
	void deliver(const Channel &channel, Plan &plan, const Taken &taken, bool with_values,
	             const std::set<uint32> &more_buckets);
	void send_values(const Channel &channel, const Plan &plan, const RedisState &state,
	                 const std::map<uint32, std::string> &nonces);
	void add_messages(Stream *stream, const Plan &plan, const Taken &taken);
	void acknowledge(const Plan &plan, Oid file, const std::vector<ItemPointerData> &tids,
	                 const Digest &incarnation);
	void maybe_purge();
	void maybe_merge();
	DeliveryTurn failed(const Error &error);
	DeliveryTurn work();

	bool loaded_ = false;
	bool dirty_ = false; /* "not clean" is written down */
	DeliveryState state_ = {};
	bool pending_ = false; /* rows are known to wait */
	bool behind_ = true;   /* values of what was visible before must not be sent */
	int failures_ = 0;
	int64 unwritten_retries_ = 0;
	std::string last_error_;
	TimestampTz last_error_at_ = 0;
	bool watching_ = false;
	int merge_from_rows_ = kMergeAtLeast;
	int64 dead_rows_ = 0; /* since the last vacuum of the outbox */
	bool looked_at_size_ = false;
	int64 dead_retained_ = 0;
	TimestampTz next_check_ = 0;
	TimestampTz next_purge_ = 0;
	std::unordered_map<std::string, TimestampTz> retained_names_;
	Sweep sweep_;
	ServerInfo info_;
	TimestampTz info_at_ = 0;
	uint64_t replicated_offset_ = 0; /* the master's, when replicated_at_ was taken */
	TimestampTz replicated_at_ = 0;
	TimestampTz replicated_through_ = 0;
};

void
Delivery::load()
{
	if (loaded_)
		return;

	DeliveryState state = {};
	bool retained = false;

	in_transaction([&](MemoryContext) {
		state = read_delivery();
		retained = any_retained();
	});
	state_ = state;
	watching_ = retained;
	behind_ = !state.clean;
	if (!state.clean)
		state_.seq += kSeqJump;
	loaded_ = true;
}

/* Reads and forgets its snapshot: none is held while Redis is waited for. */
void
Delivery::read_batch(Taken *taken)
{
	in_transaction([taken](MemoryContext context) {
		MemoryContextSwitchTo(context);
		taken->file = read_outbox(take_row, taken);
		taken->insert_lsn = GetXLogInsertRecPtr();

		Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());

		taken->state = read_redis_state(snapshot);
		UnregisterSnapshot(snapshot);
		taken->next_xid = ReadNextFullTransactionId();
		flush_commits(*taken);
	});
}

/*
 * A new epoch, since nobody knows what was stored or changed meanwhile, or since
 * cache_clear() asked for one: own entries are void, and of others' everything
 * that is watched goes.  Done when this commits; a crash before it does it again.
 */
void
Delivery::raise_epoch(const Taken &taken)
{
	in_transaction([&](MemoryContext) {
		bool wanted = taken.lapse && take_lapse();

		for (int i = 0; i < taken.count; ++i)
		{
			if (!asks_for_epoch(taken.rows[i]))
				continue;
			delete_outbox_rows(taken.file, &taken.rows[i].tid, 1);
			wanted = true;
		}
		if (!wanted)
			return;

		StringInfoData items;
		const char raised[] = {static_cast<char>(ItemKind::kClear), 1, '+'};

		initStringInfo(&items);
		appendBinaryStringInfo(&items, raised, sizeof(raised));

		NewRow row = {kBucketOfAll, 1 + append_widened_items(&items), nullptr, 0, 0};
		Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
		RedisState state = read_redis_state(snapshot);
		DeliveryState delivery = read_delivery();

		UnregisterSnapshot(snapshot);
		row.payload = items.data;
		row.length = static_cast<size_t>(items.len);
		insert_outbox_rows(&row, 1);
		++state.epoch;
		write_redis_state(state);
		delivery.seq = 0;
		delivery.clean = false;
		write_delivery(delivery);
		ForceSyncCommit();
	});
	state_.seq = 0;
	dirty_ = true;
}

/* Another Redis than the one that has all deliveries: it may hold what was removed there. */
void
Delivery::adopt_server(const pg::RedisServer &server, const RedisState &known)
{
	RedisState state = known;

	/*
	 * Own entries that lie where we have been before, and missed what was told
	 * elsewhere, are void.
	 */
	if (known.has_incarnation)
		++state.epoch;
	state.has_incarnation = true;
	state.incarnation = server.incarnation;
	in_transaction([&](MemoryContext) {
		if (known.has_incarnation)
			requeue_retained();
		write_redis_state(state);
	});
	retained_names_.clear();
	replicated_at_ = replicated_through_ = 0;

	/* What has been put back may be older than the values; the first server has nothing to get
	 * back. */
	behind_ = behind_ || known.has_incarnation;
}

/*
 * Nothing waits to be told; but readers believe nothing until the server they
 * see is the known one, so another one is adopted without waiting for work.
 */
bool
Delivery::is_elsewhere(const RedisState &state) const
{
	pg::ExchangeOptions options;

	if (!state.has_incarnation)
		return false;
	options.ignore_backoff = true;
	try
	{
		return pg::redis_server(options).incarnation != state.incarnation;
	}
	catch (const Error &)
	{
		return false; /* readers that meet it ask again */
	}
}

/* REPLICAOF by hand does not cut connections: look whether this still is the server it was. */
void
Delivery::check_server()
{
	TimestampTz now = GetCurrentTimestamp();

	if (pg::redis_connection() == 0 || now < next_check_)
		return;
	next_check_ = now + kServerCheckMs * 1000;

	pg::ExchangeOptions options;

	options.ignore_backoff = true;

	pg::RedisServer server = pg::redis_server(options);
	Request request;

	request.add({"INFO"});

	std::vector<Reply> replies = pg::redis_exchange(request, options);

	expect_good(replies[0]);
	info_ = parse_server_info(replies[0].text);
	info_at_ = now;
	if (cache::digest_instance(info_.run_id, info_.master_replid) != server.instance)
	{
		pg::redis_disconnect();
		return;
	}

	/* All replicas have what the master had at the last look that they have caught up with. */
	if (replicated_at_ != 0 && info_.slowest_replica_offset >= replicated_offset_)
		replicated_through_ = replicated_at_;
	if (replicated_at_ == 0 || replicated_through_ == replicated_at_)
	{
		replicated_at_ = now;
		replicated_offset_ = info_.master_offset;
	}
}

void
Delivery::begin_sweep(const std::vector<const OutboxRow *> &rows, Oid file)
{
	std::string prefix = glob_escape(pg::key_prefix);
	std::set<std::pair<std::string, bool>> wanted;

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
				wanted.emplace(prefix + std::string(body), false);
			else if (kind == ItemKind::kTagPattern)
				wanted.emplace(prefix + "tag:" + std::string(body), true);
		}
	}
	for (const auto &[pattern, tag_sets] : wanted)
		sweep_.jobs.push_back({pattern, tag_sets});
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
			empty_tag_sets(channel, found);
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

	Plan plan;
	Taken taken;
	std::vector<ItemPointerData> tids;

	read_batch(&taken); /* for the epoch and the position of now */
	taken.insert_lsn = Max(taken.insert_lsn, lsn);
	for (const OutboxRow &row : sweep_.rows)
	{
		plan.add(row);
		tids.push_back(row.tid);
	}
	deliver(channel, plan, taken, false, {});
	acknowledge(plan, sweep_.file, tids, channel.server().incarnation);
	sweep_ = Sweep();
}

void
Delivery::send_values(const Channel &channel, const Plan &plan, const RedisState &state,
                      const std::map<uint32, std::string> &nonces)
{
	Digest name_space = cache::current_namespace(state.epoch);
	std::string prefix = pg::key_prefix;

	for (const Value &value : plan.values)
	{
		std::set<uint32> buckets = entry_buckets(value.body);
		bool alone = TransactionIdIsNormal(value.xmin);

		for (uint32 bucket : buckets)
			alone = alone && !plan.touched_by_others(bucket, value.xmin);
		if (!alone)
			continue;

		/* Versions that this batch has not made are those of now, made when absent. */
		std::map<uint32, std::string> versions;
		std::vector<uint32> asked;
		Request request;

		for (uint32 bucket : buckets)
		{
			auto known = nonces.find(bucket);

			if (known != nonces.end())
			{
				versions[bucket] = known->second;
				continue;
			}

			std::string name = version_key(prefix, bucket);

			request.add({"SET", name, cache::fresh_nonce(), "NX"});
			request.add({"GET", name});
			asked.push_back(bucket);
		}

		std::vector<Reply> replies = channel.run(request);
		bool complete = true;

		for (size_t i = 0; i < asked.size(); ++i)
		{
			complete = complete && replies[2 * i + 1].is_string();
			versions[asked[i]] = replies[2 * i + 1].text;
		}
		if (!complete)
			continue;

		std::string key = cache::full_key(value.body.key);
		std::string bytes(value.body.value);

		if (!value.body.plain)
		{
			cache::VersionDigester digester;
			cache::Envelope envelope = {};
			std::string_view tags = value.body.tags;
			std::string_view tag;

			for (const auto &[bucket, nonce] : versions)
				digester.add(bucket, nonce);
			envelope.token = {name_space, channel.server().incarnation, digester.finish()};
			envelope.audience = cache::kEverybody;
			envelope.key = key;
			while (take_bytes(tags, tag))
				envelope.tags.push_back(tag);
			envelope.payload = value.body.value;
			bytes = cache::encode(envelope);
		}

		std::string ttl =
		    std::to_string(cache::jittered_ttl_ms(static_cast<int64>(value.body.ttl_ms)));
		Request set;

		set.add({"SET", key, bytes, "PX", ttl});
		for (const Reply &reply : channel.run(set))
			if (!(reply.is_error() && begins_with(reply.text, "OOM"))) /* best effort */
				expect_good(reply);
	}
}

/*
 * May the name stand in JSON as it is?  Names of databases in other encodings
 * that are not plain ASCII are not converted: an event that has to name one
 * says that everything is affected, which no client can misread.
 */
bool
speakable(std::string_view name)
{
	if (GetDatabaseEncoding() == PG_UTF8)
		return true;
	for (char c : name)
		if (static_cast<unsigned char>(c) >= 0x80)
			return false;
	return true;
}

/* It stays while we are connected: a database in use cannot be renamed. */
const std::string &
database_name()
{
	static std::string *kept = nullptr;

	if (kept == nullptr)
	{
		char *name = nullptr;

		in_transaction([&](MemoryContext context) {
			char *found = get_database_name(MyDatabaseId);

			name = MemoryContextStrdup(context, found != nullptr ? found : "");
		});
		kept = new std::string(name);
	}
	return *kept;
}

void
Delivery::add_messages(Stream *stream, const Plan &plan, const Taken &taken)
{
	static constexpr int64 kUnixEpochUs = (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
	const std::string &database = database_name();
	std::string event_name = event_channel(pg::key_prefix);
	std::vector<std::string> channels;
	std::vector<std::string> texts;

	for (const PublishBody &message : plan.messages)
	{
		channels.push_back(std::string(pg::key_prefix).append(message.channel));
		texts.emplace_back(message.message);
	}

	/* Names in events are those that watches and functions were given, without the prefix. */
	size_t total = plan.keys.size() + plan.tags.size() + plan.patterns.size();
	bool all = plan.all || !plan.tag_patterns.empty();

	for (const Names *names : {&plan.keys, &plan.tags, &plan.patterns})
		for (std::string_view name : *names)
			all = all || !speakable(name);

	for (size_t first = 0; first < total || (first == 0 && all); first += kNamesInEvent)
	{
		Event event;

		event.database = database;
		event.epoch = taken.state.epoch;
		event.seq = static_cast<uint64>(++state_.seq);
		event.xid = full_xid(plan.newest, taken.next_xid);
		event.lsn = taken.insert_lsn;
		event.at_us = (plan.at != 0 ? plan.at : GetCurrentTimestamp()) + kUnixEpochUs;
		event.all = all;
		for (size_t i = first; i < std::min(total, first + kNamesInEvent); ++i)
		{
			if (i < plan.keys.size())
				event.keys.push_back(plan.keys[i]);
			else if (i < plan.keys.size() + plan.tags.size())
				event.tags.push_back(plan.tags[i - plan.keys.size()]);
			else
				event.patterns.push_back(plan.patterns[i - plan.keys.size() - plan.tags.size()]);
		}
		channels.push_back(event_name);
		texts.push_back(encode_event(event));
	}

	for (size_t i = 0; i < channels.size(); ++i)
		stream->add({"PUBLISH", channels[i], texts[i]}, Stream::Expect::kMessage);
}

/* Everything in Redis that a plan asks for, in the order that the argument needs. */
void
Delivery::deliver(const Channel &channel, Plan &plan, const Taken &taken, bool with_values,
                  const std::set<uint32> &more_buckets)
{
	std::set<uint32> buckets = plan.buckets;
	std::map<uint32, std::string> nonces;
	std::vector<std::string> keys = full_names(plan.keys);
	std::vector<std::string> sets = full_names(plan.tags, "tag:");
	Stream stream(channel);
	bool values = with_values && !plan.values.empty();
	bool short_of_memory = false;

	buckets.insert(more_buckets.begin(), more_buckets.end());
	for (;;)
	{
		if (short_of_memory)
			remove_versions(&stream, buckets);
		else if (!buckets.empty())
			add_versions(&stream, buckets, taken.insert_lsn, &nonces);
		stream.add_many({"UNLINK"}, keys);
		for (const std::string &set : sets)
			add_scan(&stream, set, "0");
		if (sets.empty() && !values)
			add_messages(&stream, plan, taken); /* nothing else is to come before */
		stream.finish();

		std::vector<Reply> scans = stream.take_scans();

		if (stream.no_memory() && !short_of_memory)
		{
			short_of_memory = true;
			continue;
		}
		empty_tag_sets(channel, sets, std::move(scans));
		break;
	}
	if (sets.empty() && !values)
		return;
	if (values && !short_of_memory)
		send_values(channel, plan, taken.state, nonces);
	add_messages(&stream, plan, taken);
	stream.finish();
}

/* Redis has confirmed: the rows go, their items stay for as long as Redis could forget them. */
void
Delivery::acknowledge(const Plan &plan, Oid file, const std::vector<ItemPointerData> &tids,
                      const Digest &incarnation)
{
	TimestampTz now = GetCurrentTimestamp();
	std::string retained;
	std::vector<std::string_view> fresh;

	for (std::string_view item : plan.retained)
	{
		auto known = retained_names_.find(std::string(item));

		if (known != retained_names_.end() && now - known->second < kRetainedWindowMs * 1000)
			continue;
		retained.append(item);
		fresh.push_back(item);
	}
	for (const Value &value : plan.values)
	{
		char number[kMaxNumberBytes];

		retained.push_back(static_cast<char>(ItemKind::kKey));
		retained.append(number,
		                static_cast<size_t>(put_number(number, value.body.key.size()) - number));
		retained.append(value.body.key);
	}

	state_.delivered += plan.items;
	state_.retried += unwritten_retries_;
	state_.last_delivery = now;
	state_.clean = false;

	const DeliveryState &state = state_;
	int32 count = static_cast<int32>(fresh.size() + plan.values.size());

	in_transaction([&](MemoryContext) {
		delete_outbox_rows(file, tids.data(), static_cast<int>(tids.size()));
		if (!retained.empty())
			insert_retained(incarnation, count, retained.data(), retained.size());
		write_delivery(state);
	});

	unwritten_retries_ = 0;
	dirty_ = true;
	watching_ = true;
	dead_rows_ += static_cast<int64>(tids.size());
	looked_at_size_ = false;
	if (retained_names_.size() > kRetainedNames)
		retained_names_.clear();
	for (std::string_view item : fresh)
		retained_names_[std::string(item)] = now;
}

/*
 * Retained items may go when a save that began after their delivery is complete
 * and every replica has them, in no case before a minute has passed.  A Redis
 * that does not tell leaves an hour.
 */
void
Delivery::maybe_purge()
{
	TimestampTz now = GetCurrentTimestamp();

	if (!watching_ || now < next_purge_ || info_at_ == 0)
		return;
	next_purge_ = now + kPurgeEveryMs * 1000;

	TimestampTz safe = 0;

	if (info_.appends)
		safe = now;
	else if (info_.save_age_us >= 0)
		safe = info_at_ - info_.save_age_us;
	if (info_.replicas > 0)
		safe = Min(safe, replicated_through_);
	safe = Min(safe - kRetainedWindowMs * 1000, now - kRetainAtLeastMs * 1000);
	safe = Max(safe, now - kLossWindowMs * 1000);

	bool left = false;
	int64 purged = 0;

	in_transaction([&](MemoryContext) {
		purged = purge_retained(safe);
		left = any_retained();
	});
	watching_ = left;
	dead_retained_ += purged;
}

DeliveryTurn
Delivery::work()
{
	Taken taken;

	load();
	read_batch(&taken);

	pending_ = taken.count > 0 || sweep_.active();

	bool epoch_wanted = taken.lapse;

	for (int i = 0; i < taken.count; ++i)
		epoch_wanted = epoch_wanted || asks_for_epoch(taken.rows[i]);
	if (taken.count == 0 && !epoch_wanted && !sweep_.active() && !watching_ &&
	    !is_elsewhere(taken.state))
	{
		bool occupied = false;

		in_transaction([&](MemoryContext) { occupied = outbox_occupied(); });
		behind_ = false;
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
	Plan plan;
	std::vector<ItemPointerData> tids;
	std::vector<const OutboxRow *> swept;
	std::set<uint32> swept_buckets;

	for (int i = 0; i < taken.count; ++i)
	{
		const OutboxRow &row = taken.rows[i];

		if (sweep_.active() && sweep_.file == taken.file &&
		    sweep_.places.count(place_of(row.tid)) != 0)
			continue;
		if (needs_sweep(row))
		{
			if (!sweep_.active())
				swept.push_back(&row);
			continue;
		}
		plan.add(row);
		tids.push_back(row.tid);
	}
	if (!dirty_ && (!tids.empty() || !swept.empty()))
	{
		/* From here on somebody may hear of numbers that are not written down. */
		state_.clean = false;

		const DeliveryState &state = state_;

		in_transaction([&](MemoryContext) { write_delivery(state); });
		dirty_ = true;
	}
	if (!swept.empty())
	{
		Plan patterns;

		begin_sweep(swept, taken.file);
		for (const OutboxRow *row : swept)
			patterns.add(*row);
		swept_buckets = patterns.buckets;
		for (uint32 bucket : swept_buckets)
			plan.owners[bucket] = Plan::kMany;
	}
	if (!tids.empty() || !swept.empty())
	{
		deliver(channel, plan, taken, !behind_ && !taken.cut_short, swept_buckets);
		if (!tids.empty())
			acknowledge(plan, taken.file, tids, server.incarnation);
	}
	behind_ = taken.cut_short;
	if (sweep_.active())
		continue_sweep(channel, taken.insert_lsn);
	maybe_purge();
	failures_ = 0;

	if (taken.cut_short || sweep_.active())
		return {0, true, true, false};
	if (taken.count > 0)
		return {kPauseMs, true, watching_, true};

	bool occupied = false;

	in_transaction([&](MemoryContext) { occupied = outbox_occupied(); });
	return {kIdleMs, occupied, watching_, false};
}

/* A row's items without repetitions; values become the removal of their keys. */
class Merger
{
  public:
	void add(const OutboxRow &row)
	{
		std::string_view rest(row.payload, row.length);
		ItemKind kind;
		std::string_view body;

		items_ += row.items;
		while (!rest.empty())
		{
			std::string_view whole = rest;

			if (!take_item(rest, kind, body))
				throw Error(kDataCorrupted, "outbox row cannot be read");
			whole = whole.substr(0, whole.size() - rest.size());
			if (kind == ItemKind::kSet)
				whole = removal_of(body);
			if (kind == ItemKind::kPublish || seen_.insert(whole).second)
				append(whole);
		}
	}

	/* Rows that say the same; they depend on this object. */
	std::vector<NewRow> rows(TimestampTz at) const
	{
		std::vector<NewRow> rows;

		for (const Chunk &chunk : chunks_)
			rows.push_back(
			    {kBucketOfAll, chunk.items, chunk.payload.data(), chunk.payload.size(), at});
		return rows;
	}

	int64 saved() const { return items_ - kept_; }
	bool worthwhile() const { return saved() * 2 > items_; }

  private:
	struct Chunk
	{
		std::string payload;
		int32 items = 0;
	};

	std::string_view removal_of(std::string_view body)
	{
		SetBody set;
		char number[kMaxNumberBytes];

		if (!set.read(body))
			throw Error(kDataCorrupted, "outbox row cannot be read");

		std::string item(1, static_cast<char>(ItemKind::kKey));

		item.append(number, static_cast<size_t>(put_number(number, set.key.size()) - number));
		item.append(set.key);
		removals_.push_back(std::move(item));
		return removals_.back();
	}

	void append(std::string_view whole)
	{
		if (chunks_.empty() || chunks_.back().payload.size() + whole.size() > kMergedRowBytes)
			chunks_.emplace_back();
		chunks_.back().payload.append(whole);
		++chunks_.back().items;
		++kept_;
	}

	std::unordered_set<std::string_view> seen_;
	std::deque<std::string> removals_;
	std::deque<Chunk> chunks_;
	int64 items_ = 0;
	int64 kept_ = 0;
};

/*
 * While Redis is away, items that repeat others are merged into one, so that
 * the queue grows with the names that change and not with the changes.
 */
void
Delivery::maybe_merge()
{
	Taken taken;
	Merger merger;
	std::vector<ItemPointerData> tids;
	TimestampTz oldest = 0;

	taken.row_limit = taken.item_limit = kMergeRows;
	taken.byte_limit = kMergeBytes;
	read_batch(&taken);
	if (taken.count < merge_from_rows_)
		return;
	for (int i = 0; i < taken.count; ++i)
	{
		const OutboxRow &row = taken.rows[i];

		if (asks_for_epoch(row))
			continue;
		merger.add(row);
		tids.push_back(row.tid);
		oldest = oldest == 0 ? row.at : Min(oldest, row.at);
	}
	merge_from_rows_ = Max(kMergeAtLeast, taken.count * 2);
	if (!merger.worthwhile())
		return;

	std::vector<NewRow> rows = merger.rows(oldest);

	state_.collapsed += merger.saved();

	const DeliveryState &state = state_;

	in_transaction([&](MemoryContext) {
		delete_outbox_rows(taken.file, tids.data(), static_cast<int>(tids.size()));
		insert_outbox_rows(rows.data(), static_cast<int>(rows.size()));
		write_delivery(state);
	});
	merge_from_rows_ = Max(kMergeAtLeast, static_cast<int>(rows.size()) * 2);
	dead_rows_ += static_cast<int64>(tids.size());
	looked_at_size_ = false;
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
		return work();
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
 * Every delivery reads the whole outbox, so it is kept at a few dozen pages
 * under load, and cut short afterwards if a backlog has made it large.
 */
void
Delivery::vacuum(bool idle)
{
	bool shorten = false;

	if (idle && !looked_at_size_)
	{
		in_transaction([&](MemoryContext) { shorten = outbox_pages() > kPagesOfSmallOutbox; });
		looked_at_size_ = true;
	}
	if (dead_rows_ >= kDeadRows || shorten)
	{
		pg::call([&] { pg::vacuum_internal_table("outbox", shorten); });
		dead_rows_ = 0;
	}
	if (dead_retained_ >= kDeadRows)
	{
		pg::call([&] { pg::vacuum_internal_table("retained", false); });
		dead_retained_ = 0;
	}
}

Delivery *
delivery()
{
	static Delivery *the_delivery = nullptr;

	if (the_delivery == nullptr)
		the_delivery = new Delivery();
	return the_delivery;
}

} /* namespace */

DeliveryTurn
deliver_batch()
{
	return pg::guard([] { return delivery()->turn(); });
}

void
vacuum_outbox(bool idle)
{
	pg::guard([idle] { delivery()->vacuum(idle); });
}

void
finish_delivery()
{
	pg::guard([] { delivery()->finish(); });
}

} /* namespace cache_ext::invalidation */
