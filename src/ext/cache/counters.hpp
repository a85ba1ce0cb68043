/*-------------------------------------------------------------------------
 *
 * counters.hpp
 *		What the cache has done in this database, counted without contention.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "pg/server.hpp"

extern "C" {
#include "utils/timestamp.h"
}

namespace cache_ext::cache {

enum class Tier
{
	kMemory,
	kRedis,
	kQuery
};
constexpr int kTiers = 3;

enum class Event
{
	kHit,
	kMiss,
	kSet,
	kDelete,
	kError,
	kStaleHit
};
constexpr int kEvents = 6;

/* A latency falls into one of these, four to each power of two from 64 ns on. */
constexpr int kLatencies = 128;

struct TierCounts
{
	uint64 events[kEvents];
	uint64 timed;
	uint64 timed_ns;
	uint64 latencies[kLatencies];
};

/* What else is counted: sessions and rate limits. */
enum class Tally
{
	kSessionHit,
	kSessionMiss,
	kSessionSet,
	kSessionTouched,
	kSessionDestroyed,
	kLimitAllowed,
	kLimitDenied,
	kLimitUndecided, /* nobody could tell: Redis was away */
	kLimitForgotten  /* too early, to make room in shared memory */
};
constexpr int kTallies = 9;

struct Counts
{
	TierCounts tiers[kTiers];
	uint64 tallies[kTallies];
};

/* Hooks for shared memory; without preloading each session counts for itself. */
void register_counters();

/* Neither fails, waits nor allocates. */
void count(Tier tier, Event event, uint64 times = 1) noexcept;
void count(Tally tally, uint64 times = 1) noexcept;
void count_latency(Tier tier, uint64 ns) noexcept;

/* Nanoseconds of a clock that only goes forward. */
uint64 clock_ns() noexcept;

/* Of this database since the last reset; *reset_at is when that was, or the server's start. */
Counts counts_of_database(TimestampTz *reset_at);
void reset_counts();

/* Milliseconds that this share of the calls did not exceed; below zero: there were none. */
double latency_quantile(const TierCounts &counts, double share) noexcept;

} /* namespace cache_ext::cache */
