/*-------------------------------------------------------------------------
 *
 * counters.cpp
 *		What the cache has done in this database; see counters.hpp.
 *
 * Each process writes counters of its own in shared memory, alone, so counting
 * is an addition and a store.  When it ends it adds them to its database's sum.
 * Readers add up the sum and the processes that are there; a process that is
 * just leaving holds the lock while it moves its counts, so none is seen twice.
 * A reset remembers what the sum was.
 *
 * lock, shared: add up.  lock, exclusive: join, leave, reset.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/cache/counters.hpp"

#include <time.h>

#include "pg/shared_memory.hpp"

extern "C" {
#include "port/pg_bitutils.h"
#include "storage/ipc.h"
#include "storage/proc.h"
}

namespace cache_ext::cache {

constexpr const char *kTranche = "cache_ext counters";
constexpr int kDatabases = 64;   /* later ones share the last sum, and show it */
constexpr int kFirstLatency = 6; /* log2 of the nanoseconds that the first bucket holds */

struct ProcessCounts
{
	Oid database; /* invalid: free */
	Counts counts;
};

struct DatabaseCounts
{
	Oid database;
	TimestampTz reset_at;
	Counts sum;    /* of processes that have left */
	Counts before; /* the reset */
};

struct CounterTable
{
	LWLock *lock;
	int processes;
	TimestampTz started;
	DatabaseCounts databases[kDatabases];
	ProcessCounts each[FLEXIBLE_ARRAY_MEMBER];
};

static CounterTable *table = nullptr;
static ProcessCounts alone;          /* where there is no shared memory */
static ProcessCounts *own = nullptr; /* set at the first count */
static TimestampTz alone_reset_at = 0;
static Counts alone_before;

static int
process_limit()
{
	return MaxBackends + NUM_AUXILIARY_PROCS;
}

static Size
table_bytes()
{
	return add_size(offsetof(CounterTable, each),
	                mul_size(sizeof(ProcessCounts), static_cast<Size>(process_limit())));
}

static void
request_counters()
{
	RequestAddinShmemSpace(table_bytes());
	RequestNamedLWLockTranche(kTranche, 1);
}

static void
attach_counters()
{
	auto make = [](CounterTable *fresh) {
		memset(fresh, 0, table_bytes());
		fresh->lock = &GetNamedLWLockTranche(kTranche)->lock;
		fresh->processes = process_limit();
		fresh->started = GetCurrentTimestamp();
	};

	table = pg::attach_shared<CounterTable>("cache_ext counters", table_bytes(), make);
}

static pg::SharedArea area = {request_counters, attach_counters};

void
register_counters()
{
	pg::add_shared_area(&area);
}

static void
add(Counts *to, const Counts &from, bool negative = false) noexcept
{
	auto *target = reinterpret_cast<uint64 *>(to);
	auto *source = reinterpret_cast<const uint64 *>(&from);

	static_assert(sizeof(Counts) % sizeof(uint64) == 0);
	for (size_t i = 0; i < sizeof(Counts) / sizeof(uint64); ++i)
		target[i] += negative ? uint64{0} - source[i] : source[i];
}

/* The database's sum, under the exclusive lock when it may have to be made. */
static DatabaseCounts *
sum_of_database(Oid database, bool make)
{
	for (DatabaseCounts &each : table->databases)
	{
		if (each.database == database)
			return &each;
		if (OidIsValid(each.database) || !make)
			continue;
		each.database = database;
		each.reset_at = table->started;
		return &each;
	}
	return make ? &table->databases[kDatabases - 1] : nullptr;
}

static void
leave(int, Datum)
{
	LWLockAcquire(table->lock, LW_EXCLUSIVE);
	add(&sum_of_database(own->database, true)->sum, own->counts);
	memset(own, 0, sizeof(*own));
	own = &alone;
	LWLockRelease(table->lock);
}

static ProcessCounts *
join() noexcept
{
	own = &alone;
	if (table == nullptr || !OidIsValid(MyDatabaseId) || MyProc == nullptr)
		return own;
	LWLockAcquire(table->lock, LW_EXCLUSIVE);
	for (int i = 0; i < table->processes && own == &alone; ++i)
		if (!OidIsValid(table->each[i].database))
			own = &table->each[i];
	own->database = MyDatabaseId;
	LWLockRelease(table->lock);
	if (own != &alone)
		before_shmem_exit(leave, 0);
	return own;
}

static Counts &
own_counts() noexcept
{
	return (own != nullptr ? own : join())->counts;
}

static TierCounts &
of_tier(Tier tier) noexcept
{
	return own_counts().tiers[static_cast<int>(tier)];
}

void
count(Tier tier, Event event, uint64 times) noexcept
{
	of_tier(tier).events[static_cast<int>(event)] += times;
}

void
count(Tally tally, uint64 times) noexcept
{
	own_counts().tallies[static_cast<int>(tally)] += times;
}

uint64
clock_ns() noexcept
{
	timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return static_cast<uint64>(now.tv_sec) * UINT64CONST(1000000000) +
	       static_cast<uint64>(now.tv_nsec);
}

static int
latency_bucket(uint64 ns) noexcept
{
	if (ns < UINT64CONST(1) << kFirstLatency)
		return 0;

	int power = pg_leftmost_one_pos64(ns);
	int quarter = static_cast<int>(ns >> (power - 2) & 3);

	return Min((power - kFirstLatency) * 4 + quarter, kLatencies - 1);
}

/* Where the bucket ends. */
static double
bucket_end_ns(int bucket) noexcept
{
	return static_cast<double>(UINT64CONST(1) << (kFirstLatency + bucket / 4)) *
	       (1.0 + (bucket % 4 + 1) / 4.0);
}

void
count_latency(Tier tier, uint64 ns) noexcept
{
	TierCounts &counts = of_tier(tier);

	++counts.timed;
	counts.timed_ns += ns;
	++counts.latencies[latency_bucket(ns)];
}

double
latency_quantile(const TierCounts &counts, double share) noexcept
{
	double wanted = static_cast<double>(counts.timed) * share;
	uint64 seen = 0;

	for (int i = 0; i < kLatencies && counts.timed > 0; ++i)
	{
		seen += counts.latencies[i];
		if (static_cast<double>(seen) >= wanted)
			return bucket_end_ns(i) / 1e6;
	}
	return -1;
}

/* Since the server's start; the caller holds the lock. */
static Counts
add_up(const DatabaseCounts *database)
{
	Counts sum = {};

	if (database != nullptr)
		sum = database->sum;
	for (int i = 0; i < table->processes; ++i)
		if (table->each[i].database == MyDatabaseId)
			add(&sum, table->each[i].counts);
	return sum;
}

Counts
counts_of_database(TimestampTz *reset_at)
{
	if (table == nullptr)
	{
		Counts sum = alone.counts;

		add(&sum, alone_before, true);
		*reset_at = alone_reset_at != 0 ? alone_reset_at : MyStartTimestamp;
		return sum;
	}
	LWLockAcquire(table->lock, LW_SHARED);

	const DatabaseCounts *database = sum_of_database(MyDatabaseId, false);
	Counts sum = add_up(database);

	*reset_at = database != nullptr ? database->reset_at : table->started;
	if (database != nullptr)
		add(&sum, database->before, true);
	LWLockRelease(table->lock);
	return sum;
}

void
reset_counts()
{
	if (table == nullptr)
	{
		alone_before = alone.counts;
		alone_reset_at = GetCurrentTimestamp();
		return;
	}
	LWLockAcquire(table->lock, LW_EXCLUSIVE);

	DatabaseCounts *database = sum_of_database(MyDatabaseId, true);

	database->before = add_up(database);
	database->reset_at = GetCurrentTimestamp();
	LWLockRelease(table->lock);
}

} /* namespace cache_ext::cache */
