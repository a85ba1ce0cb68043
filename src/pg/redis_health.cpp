/*-------------------------------------------------------------------------
 *
 * redis_health.cpp
 *		Shared memory: what all processes have met at an endpoint of Redis.
 *
 * settled is what the hot path reads: not 0 while the breaker is closed and the
 * log knows that Redis is there, and then it is the breaker's round plus one, so
 * that a failure can say to which time it belongs.
 *
 * Entries are found by a fingerprint of the endpoint.  When all are in use the
 * one looked at longest ago goes; who still points to it sees another key there
 * and looks again.
 *
 *-------------------------------------------------------------------------
 */
#include <chrono>

#include "pg/guard.hpp"
#include "pg/redis_health.hpp"
#include "pg/shared_memory.hpp"

extern "C" {
#include "common/pg_prng.h"
#include "port/atomics.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"
}

namespace cache_ext::pg {

constexpr int kEntries = 16;
constexpr Backoff kBackoffAway = {100 * 1000, 5 * 1000 * 1000};
constexpr Backoff kBackoffRefused = {500 * 1000, 10 * 1000 * 1000};
constexpr int64 kTellAgainUs = 60 * 1000 * 1000;

struct RedisHealth
{
	pg_atomic_uint64 key; /* 0: free; changed under the lock */
	pg_atomic_uint32 settled;

	/* Under the lock: */
	Breaker breaker;
	bool known;     /* somebody has asked */
	bool connected; /* it has answered once */
	bool answers;
	bool refused;  /* the last failure was of this kind */
	uint32 reason; /* that the log was told last; 0: none */
	TimestampTz since;
	int64 reconnects;
	int64 asked_us; /* when the breaker was last looked at */
	int64 refusal_told_us;
	char refusal[16]; /* first word of the refusal that the log was told last */
	char last_error[sizeof(HealthStatus::last_error)];
};

namespace {

struct HealthTable
{
	LWLock lock;
	int tranche;
	pg_atomic_uint32 connections;
	pg_atomic_uint32 environment_told;
	pg_atomic_uint64 connections_told;
	RedisHealth entries[kEntries];
};

HealthTable *table = nullptr;

/* Held for a few instructions, in which nothing can be raised. */
class Locked
{
  public:
	Locked() noexcept { LWLockAcquire(&table->lock, LW_EXCLUSIVE); }
	~Locked() { LWLockRelease(&table->lock); }
	Locked(const Locked &) = delete;
	Locked &operator=(const Locked &) = delete;
};

int64
now_us() noexcept
{
	auto now = std::chrono::steady_clock::now().time_since_epoch();

	return std::chrono::duration_cast<std::chrono::microseconds>(now).count();
}

void
clear(RedisHealth *entry, uint64 key) noexcept
{
	pg_atomic_write_u32(&entry->settled, 0);
	entry->breaker = Breaker();
	entry->known = entry->connected = entry->answers = entry->refused = false;
	entry->reason = 0;
	entry->since = GetCurrentTimestamp();
	entry->reconnects = 0;
	entry->asked_us = now_us();
	entry->refusal_told_us = 0;
	entry->refusal[0] = entry->last_error[0] = '\0';
	pg_atomic_write_u64(&entry->key, key);
}

void
attach_table()
{
	auto make = [](HealthTable *shared) {
		shared->tranche = LWLockNewTrancheId();
		LWLockInitialize(&shared->lock, shared->tranche);
		pg_atomic_init_u32(&shared->connections, 0);
		pg_atomic_init_u32(&shared->environment_told, 0);
		pg_atomic_init_u64(&shared->connections_told, 0);
		for (RedisHealth &entry : shared->entries)
		{
			pg_atomic_init_u64(&entry.key, 0);
			pg_atomic_init_u32(&entry.settled, 0);
			entry.asked_us = 0; /* free: the first to be taken */
		}
	};

	table = attach_shared<HealthTable>("cache_ext Redis health", sizeof(HealthTable), make);
	LWLockRegisterTranche(table->tranche, "cache_ext Redis health");
}

void
request_table()
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(HealthTable)));
}

SharedArea area = {request_table, attach_table};

/* Not preloaded, each process finds it at first use. */
void
use_table()
{
	if (table == nullptr)
		attach_table();
}

/* Under the lock: the key's entry, taken from the one asked longest ago when there is none. */
RedisHealth *
find_entry(uint64 key) noexcept
{
	RedisHealth *victim = &table->entries[0];

	for (RedisHealth &entry : table->entries)
	{
		if (pg_atomic_read_u64(&entry.key) == key)
			return &entry;
		if (entry.asked_us < victim->asked_us)
			victim = &entry;
	}
	clear(victim, key);
	return victim;
}

} /* namespace */

void
register_redis_health()
{
	add_shared_area(&area);
}

void
HealthOf::set_endpoint(const Digest &fingerprint)
{
	uint64 key = fingerprint.low != 0 ? fingerprint.low : 1;

	if (key_ == key)
		return;
	report_nothing();
	call([] { use_table(); });
	key_ = key;
}

/* Under the lock. */
RedisHealth *
HealthOf::entry()
{
	if (entry_ == nullptr || pg_atomic_read_u64(&entry_->key) != key_)
		entry_ = find_entry(key_);
	return entry_;
}

bool
HealthOf::ask(int64 longest_us, Hurry hurry)
{
	uint32 settled = 0;

	if (entry_ != nullptr && pg_atomic_read_u64(&entry_->key) == key_)
		settled = pg_atomic_read_u32(&entry_->settled);
	if (settled != 0)
	{
		ticket_.round = settled - 1;
		ticket_.probe = false;
		asking_ = true;
		return true;
	}

	int64 now = now_us();
	Locked locked;
	RedisHealth *mine = entry();

	bool impatient = hurry == Hurry::kNow || (hurry == Hurry::kOwnPace && !mine->refused);

	mine->asked_us = now;
	asking_ = mine->breaker.admit(now, longest_us, impatient, &ticket_);
	return asking_;
}

HealthChange
HealthOf::report_success() noexcept
{
	HealthChange change = {HealthChange::kNothing, 0};

	if (!asking_)
		return change;
	asking_ = false;
	if (!ticket_.probe && pg_atomic_read_u32(&entry_->settled) == ticket_.round + 1)
		return change;

	TimestampTz now = GetCurrentTimestamp();
	Locked locked;
	RedisHealth *mine = entry();
	uint32 tries = mine->breaker.failures();

	mine->breaker.success(ticket_);
	if (mine->breaker.state() != Breaker::State::kClosed)
		return change;
	if (!mine->answers)
	{
		mine->since = now;
		change = {mine->connected ? HealthChange::kReconnected : HealthChange::kConnected, tries};
		mine->reconnects += mine->connected ? 1 : 0;
	}
	mine->known = mine->connected = mine->answers = true;
	mine->refused = false;
	mine->reason = 0;
	pg_atomic_write_u32(&mine->settled, mine->breaker.round() + 1);
	return change;
}

HealthChange
HealthOf::report_failure(FailureKind kind, uint32 reason, const char *text) noexcept
{
	HealthChange change = {HealthChange::kNothing, 0};

	if (!asking_)
		return change;
	asking_ = false;

	const Backoff &backoff = kind == FailureKind::kRefused ? kBackoffRefused : kBackoffAway;
	double chance = pg_prng_double(&pg_global_prng_state);
	TimestampTz now = GetCurrentTimestamp();
	Locked locked;
	RedisHealth *mine = entry();

	strlcpy(mine->last_error, text, sizeof(mine->last_error));
	if (!mine->breaker.failure(ticket_, now_us(), backoff, chance))
		return change;
	pg_atomic_write_u32(&mine->settled, 0);
	if (mine->answers || !mine->known)
		mine->since = now;
	mine->known = true;
	mine->answers = false;
	mine->refused = kind == FailureKind::kRefused;
	if (mine->reason != reason)
		change.what = HealthChange::kFailed;
	mine->reason = reason;
	return change;
}

void
HealthOf::report_nothing() noexcept
{
	if (!asking_)
		return;
	asking_ = false;
	if (!ticket_.probe)
		return;

	Locked locked;

	if (pg_atomic_read_u64(&entry_->key) == key_)
		entry_->breaker.abandon(ticket_, now_us());
}

bool
HealthOf::overtaken() noexcept
{
	if (!asking_ || pg_atomic_read_u32(&entry_->settled) == ticket_.round + 1)
		return false;

	Locked locked;

	return entry()->breaker.round() != ticket_.round;
}

bool
HealthOf::note_refusal(const char *text) noexcept
{
	int64 now = now_us();
	char word[sizeof(RedisHealth::refusal)];
	Locked locked;
	RedisHealth *mine = entry();

	strlcpy(word, text, sizeof(word));
	if (char *blank = strchr(word, ' '))
		*blank = '\0';
	strlcpy(mine->last_error, text, sizeof(mine->last_error));
	if (strcmp(mine->refusal, word) == 0 && now - mine->refusal_told_us < kTellAgainUs)
		return false;
	strlcpy(mine->refusal, word, sizeof(mine->refusal));
	mine->refusal_told_us = now;
	return true;
}

HealthStatus
HealthOf::status()
{
	HealthStatus status;
	Locked locked;
	RedisHealth *mine = entry();

	status.known = mine->known;
	status.answers = mine->answers;
	status.breaker = mine->breaker.state();
	status.since = mine->since;
	status.reconnects = mine->reconnects;
	strlcpy(status.last_error, mine->last_error, sizeof(status.last_error));
	return status;
}

bool
count_connection(int most)
{
	call([] { use_table(); });
	if (pg_atomic_fetch_add_u32(&table->connections, 1) < static_cast<uint32>(most))
		return true;
	pg_atomic_fetch_sub_u32(&table->connections, 1);
	return false;
}

void
discount_connection() noexcept
{
	pg_atomic_fetch_sub_u32(&table->connections, 1);
}

bool
tell_about_environment()
{
	use_table();
	return pg_atomic_exchange_u32(&table->environment_told, 1) == 0;
}

bool
tell_about_connections() noexcept
{
	uint64 now = static_cast<uint64>(now_us());
	uint64 told = pg_atomic_read_u64(&table->connections_told);

	return (told == 0 || now - told > static_cast<uint64>(kTellAgainUs)) &&
	       pg_atomic_compare_exchange_u64(&table->connections_told, &told, now);
}

} /* namespace cache_ext::pg */
