/*-------------------------------------------------------------------------
 *
 * redis_health.hpp
 *		Shared memory: what all processes have met at an endpoint of Redis.
 *
 * One process notices that Redis has gone or come back, and tells the log; the
 * others know.  After a failure nobody asks for a while, and then one asks for
 * all (core/base/breaker), so that a dead Redis costs the server one timeout a
 * pause and not each process its own.  Also counts the connections of the
 * server.
 *
 * A lightweight lock guards the entries.  It is a leaf: nothing is waited for,
 * raised or allocated under it.  While all is well a question and its report
 * are one atomic read each and the lock is left alone.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string>

#include "core/base/breaker.hpp"
#include "core/base/digest.hpp"
#include "pg/server.hpp"

extern "C" {
#include "datatype/timestamp.h"
}

namespace cache_ext::pg {

struct RedisHealth;

/* What kind of failure it is: how soon the next attempt may come. */
enum class FailureKind
{
	kAway,   /* not there, silent, or not talking sense: may be back any moment */
	kRefused /* it is there and does not want us: somebody has to mend something */
};

/* Who waits for the pause after a failure.  A probe on its way is waited for by all. */
enum class Hurry
{
	kNone,
	kOwnPace, /* has pauses of its own; waits for this one only where it is refused */
	kNow
};

/* What a report has changed, for the log: the reporter is the one to tell it. */
struct HealthChange
{
	enum What
	{
		kNothing,
		kConnected, /* for the first time */
		kFailed,    /* or fails for another reason than it did */
		kReconnected
	} what;
	uint32 tries; /* of kReconnected: attempts that had failed */
};

struct HealthStatus
{
	bool known; /* somebody has asked it since the server's start */
	bool answers;
	Breaker::State breaker;
	TimestampTz since; /* when it began, or ceased, to answer */
	int64 reconnects;
	char last_error[256]; /* empty: none */
};

/* Hooks for shared memory when the library is preloaded; nothing otherwise. */
void register_redis_health();

/* An endpoint as this process knows it; the entry is looked up when it is used.  May raise. */
class HealthOf
{
  public:
	void set_endpoint(const Digest &fingerprint);

	/*
	 * May we ask now?  Then exactly one of the reports below has to follow, at
	 * the latest by forget_question() when the process ends.
	 */
	bool ask(int64 longest_us, Hurry hurry);
	HealthChange report_success() noexcept;
	HealthChange report_failure(FailureKind kind, uint32 reason, const char *text) noexcept;
	void report_nothing() noexcept; /* cancelled, or it never got so far */

	/* Has somebody else reported a failure since we asked? */
	bool overtaken() noexcept;

	/* A command was refused by a server that is well.  True when the log should be told. */
	bool note_refusal(const char *text) noexcept;

	HealthStatus status();

  private:
	RedisHealth *entry();

	uint64 key_ = 0;
	RedisHealth *entry_ = nullptr;
	Breaker::Ticket ticket_;
	bool asking_ = false;
};

/* One more connection of this server, unless there are so many. */
bool count_connection(int most);
void discount_connection() noexcept; /* safe in a signal handler */

/* True for one caller since the server's start. */
bool tell_about_environment();

/* True for one caller a minute. */
bool tell_about_connections() noexcept;

} /* namespace cache_ext::pg */
