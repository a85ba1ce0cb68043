/*-------------------------------------------------------------------------
 *
 * statistics_functions.cpp
 *		What the cache tells about itself: cache_stats, cache_explain.
 *
 *-------------------------------------------------------------------------
 */
#include <string>

#include "ext/cache/arguments.hpp"
#include "ext/cache/cache.hpp"
#include "ext/cache/counters.hpp"
#include "ext/cache/loaders.hpp"
#include "ext/cache/memory.hpp"
#include "ext/cache/read.hpp"
#include "ext/cache/tier.hpp"
#include "pg/guard.hpp"
#include "pg/redis_link.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(cache_ext_stats);
PG_FUNCTION_INFO_V1(cache_ext_stats_reset);
PG_FUNCTION_INFO_V1(cache_ext_explain);
PG_FUNCTION_INFO_V1(cache_ext_memory_is_there);
PG_FUNCTION_INFO_V1(cache_ext_tallies);
}

namespace cache_ext::cache {

namespace {

constexpr const char *kTierNames[kTiers] = {"memory", "redis", "query"};

/* The columns of cache_ext_internal.stats(). */
constexpr int kStatsColumns = 13;

void
put_tier(ReturnSetInfo *result, int tier, const TierCounts &counts, const MemoryStatistics *memory,
         TimestampTz reset_at)
{
	Datum values[kStatsColumns] = {};
	bool nulls[kStatsColumns] = {};
	double p99 = latency_quantile(counts, 0.99);
	int column = 0;

	values[column++] = CStringGetTextDatum(kTierNames[tier]);
	for (Event event :
	     {Event::kHit, Event::kMiss, Event::kSet, Event::kDelete, Event::kError, Event::kStaleHit})
		values[column++] =
		    Int64GetDatum(static_cast<int64>(counts.events[static_cast<int>(event)]));
	for (uint64 figure :
	     {memory != nullptr ? memory->evictions : 0, memory != nullptr ? memory->entries : 0,
	      memory != nullptr ? memory->bytes : 0})
	{
		nulls[column] = memory == nullptr;
		values[column++] = Int64GetDatum(static_cast<int64>(figure));
	}
	nulls[column] = counts.timed == 0;
	values[column++] =
	    Float8GetDatum(counts.timed == 0 ? 0
	                                     : static_cast<double>(counts.timed_ns) /
	                                           static_cast<double>(counts.timed) / 1e6);
	nulls[column] = p99 < 0;
	values[column++] = Float8GetDatum(p99);
	values[column++] = TimestampTzGetDatum(reset_at);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* What cache_explain says, as C++ has it. */
struct Explained
{
	const char *tier = nullptr;
	int64 age_ms = -1;
	int64 ttl_ms = -1;
	bool has_tags = false;
	std::vector<std::string> tags;
	int64 bytes = -1;
	int64 loads = -1; /* of this name by queries of this server's, while memory has had it */
	int64 hits = -1;
	LastInvalidation removed = {0, 0};
	const char *removed_by = nullptr;
	std::string reason;
};

void
explain_removal(std::string_view key, Explained *explained)
{
	struct
	{
		LastInvalidation last;
		const char *by;
	} candidates[] = {{last_key_invalidation(key), "key"},
	                  {last_prefix_invalidation(key), "pattern"},
	                  {last_clear(), "clear"}};

	for (const auto &candidate : candidates)
		if (candidate.last.at > explained->removed.at)
		{
			explained->removed = candidate.last;
			explained->removed_by = candidate.by;
		}
	for (const std::string &tag : explained->tags)
		if (LastInvalidation last = last_tag_invalidation(tag); last.at > explained->removed.at)
		{
			explained->removed = last;
			explained->removed_by = "tag";
		}
}

/* A valid entry of memory that was not for us, or one that is void. */
bool
explain_listed(std::string_view key, Explained *explained)
{
	for (const MemoryListed &entry : memory_list())
	{
		if (entry.key != key)
			continue;
		explained->bytes = static_cast<int64>(entry.bytes);
		explained->loads = entry.facts.loads;
		explained->hits = entry.facts.hits;
		if (!entry.valid && entry.facts.keep_until > GetCurrentTimestamp())
			explained->reason = "invalidated since it was stored";
		else if (entry.facts.expires_at <= GetCurrentTimestamp())
			explained->reason = "expired";
		else
		{
			explained->tier = "memory";
			explained->reason = "made for another role or other settings";
		}
		return true;
	}
	return false;
}

Explained
explain_in(std::string_view key, const Loader *loader)
{
	ActingLoader acting(loader);
	Explained explained;
	MemoryHit found = memory_peek(key);

	if (found.found)
	{
		explained.tier = "memory";
		explained.age_ms = now_ms() - to_ms(found.facts.loaded_at);
		explained.ttl_ms = std::max<int64>(to_ms(found.facts.expires_at) - now_ms(), 0);
		explained.has_tags = true;
		for (std::string_view tag : decode_tags(found.encoded_tags))
			explained.tags.emplace_back(tag);
		explained.bytes = static_cast<int64>(found.value.size());
		explained.loads = found.facts.loads;
		explained.hits = found.facts.hits;
		explained.reason = found.fresh ? "valid" : "expired, kept for when its source fails";
		return explained;
	}
	if (!pg::redis_configured())
	{
		explained.reason = "not cached";
		return explained;
	}

	Lookup lookup = std::move(look_up_many({key}, true).front());

	if (lookup.outcome == Lookup::Outcome::kUnavailable)
		explained.reason = "Redis cannot be used, or has not been told of an invalidation yet";
	else if (lookup.outcome == Lookup::Outcome::kMiss)
		explained.reason = lookup.storage.is_string()
		                       ? "invalidated since it was stored, or made for another role"
		                       : "not cached";
	else
	{
		explained.tier = "redis";
		if (lookup.age.made_at > 0)
			explained.age_ms = std::max<int64>(now_ms() - lookup.age.made_at, 0);
		explained.ttl_ms =
		    lookup.age.fresh_ms > 0
		        ? std::max<int64>(lookup.age.made_at + lookup.age.fresh_ms - now_ms(), 0)
		        : lookup.age.left_ms;
		explained.has_tags = !lookup.bare;
		for (std::string_view tag : lookup.tags())
			explained.tags.emplace_back(tag);
		explained.bytes = static_cast<int64>(lookup.value().size());
		explained.reason = lookup.bare    ? "another application's value"
		                   : lookup.hit() ? "valid"
		                                  : "expired, kept for when its source fails";
	}
	return explained;
}

Explained
explain(std::string_view key)
{
	LoaderMatch match = find_loader(key);
	Explained explained = explain_in(key, match.loader.get());

	if (explained.tier == nullptr)
		(void) explain_listed(key, &explained);
	explain_removal(key, &explained);
	if (!pg::cache_enabled)
		explained.reason.append("; cache_ext.enabled is off");
	else if (!may_share())
		explained.reason.append("; this transaction takes no shared values");
	if (match.loader != nullptr)
		explained.reason.append("; loader ").append(match.loader->pattern);
	return explained;
}

Datum
interval_of(int64 ms)
{
	auto *interval = static_cast<Interval *>(palloc0(sizeof(Interval)));

	interval->time = ms * 1000;
	return IntervalPGetDatum(interval);
}

/* The columns of cache_explain(). */
constexpr int kExplainColumns = 12;

Datum
explained_row(FunctionCallInfo fcinfo, std::string_view key, const Explained &explained)
{
	TupleDesc type;
	Datum values[kExplainColumns] = {};
	bool nulls[kExplainColumns] = {};
	const std::vector<std::string> &tags = explained.tags;
	auto *tag_datums = static_cast<Datum *>(palloc(sizeof(Datum) * (tags.size() + 1)));

	if (get_call_result_type(fcinfo, nullptr, &type) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	for (size_t i = 0; i < tags.size(); ++i)
		tag_datums[i] = CStringGetTextDatum(tags[i].c_str());
	values[0] = PointerGetDatum(cstring_to_text_with_len(key.data(), static_cast<int>(key.size())));
	nulls[1] = explained.tier == nullptr;
	if (!nulls[1])
		values[1] = CStringGetTextDatum(explained.tier);
	nulls[2] = explained.age_ms < 0;
	values[2] = interval_of(explained.age_ms);
	nulls[3] = explained.ttl_ms < 0;
	values[3] = interval_of(explained.ttl_ms);
	nulls[4] = !explained.has_tags;
	values[4] = PointerGetDatum(construct_array(tag_datums, static_cast<int>(tags.size()), TEXTOID,
	                                            -1, false, TYPALIGN_INT));
	nulls[5] = explained.bytes < 0;
	values[5] = Int64GetDatum(explained.bytes);
	nulls[6] = explained.loads < 0;
	values[6] = Int64GetDatum(explained.loads);
	nulls[7] = explained.hits < 0;
	values[7] = Int64GetDatum(explained.hits);
	nulls[8] = explained.removed_by == nullptr;
	values[8] = TimestampTzGetDatum(explained.removed.at);
	nulls[9] = explained.removed_by == nullptr;
	if (!nulls[9])
		values[9] = CStringGetTextDatum(explained.removed_by);
	nulls[10] = explained.removed_by == nullptr || explained.removed.xid == 0;
	values[10] = UInt64GetDatum(explained.removed.xid);
	values[11] = CStringGetTextDatum(explained.reason.c_str());
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(type), values, nulls));
}

} /* namespace */

} /* namespace cache_ext::cache */

using namespace cache_ext;

extern "C" {

Datum
cache_ext_stats(PG_FUNCTION_ARGS)
{
	auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
	TimestampTz reset_at;

	InitMaterializedSRF(fcinfo, 0);

	cache::Counts counts = cache::counts_of_database(&reset_at);
	bool has_memory = cache::memory_available();
	cache::MemoryStatistics memory = pg::guard([&] { return cache::memory_statistics(); });

	for (int tier = 0; tier < cache::kTiers; ++tier)
		cache::put_tier(result, tier, counts.tiers[tier],
		                tier == static_cast<int>(cache::Tier::kMemory) && has_memory ? &memory
		                                                                             : nullptr,
		                reset_at);
	return Datum(0);
}

Datum
cache_ext_stats_reset(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	cache::reset_counts();
	PG_RETURN_VOID();
}

/* A row: what has been counted of sessions and rate limits, in the order of Tally. */
Datum
cache_ext_tallies(PG_FUNCTION_ARGS)
{
	TupleDesc columns;
	TimestampTz reset_at;
	cache::Counts counts = cache::counts_of_database(&reset_at);
	Datum values[cache::kTallies + 1];
	bool nulls[cache::kTallies + 1] = {};

	if (get_call_result_type(fcinfo, nullptr, &columns) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	for (int i = 0; i < cache::kTallies; ++i)
		values[i] = Int64GetDatum(static_cast<int64>(counts.tallies[i]));
	values[cache::kTallies] = TimestampTzGetDatum(reset_at);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(columns), values, nulls));
}

Datum
cache_ext_memory_is_there(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	PG_RETURN_BOOL(cache::memory_available());
}

/* cache_explain(key) */
Datum
cache_ext_explain(PG_FUNCTION_ARGS)
{
	std::string_view key = cache::key_argument(fcinfo, 0);

	return pg::guard([&] {
		cache::Explained explained = cache::explain(key);

		return pg::call([&] { return cache::explained_row(fcinfo, key, explained); });
	});
}
}
