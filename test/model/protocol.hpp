/*-------------------------------------------------------------------------
 *
 * protocol.hpp
 *		The states of the cache's protocol, and what can be left out of it.
 *
 * Values are sets of writers: bit w says that the effect of writer w is in it.
 * So "older" and "newer" are comparisons of sets.  Writer w invalidates bucket w
 * (think of the key and a tag); the one cache entry depends on both.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <cstdint>

namespace cache_ext::model {

using u8 = uint8_t;

constexpr int kWriters = 2;
constexpr int kReaders = 2;

/* A step left out, or done in another order; each must break a promise somewhere. */
enum class Without
{
	kNothing,
	kFence,                  /* no lock around the commit */
	kFenceBeforeGenerations, /* generations raised before the lock is taken */
	kRaiseBeforeVisible,   /* generations raised by the commit callback, which COMMIT PREPARED lacks
	                        */
	kFenceOverRestart,     /* a prepared transaction's lock is not restored */
	kFenceReleasedOnAbort, /* a lock that only a commit releases */
	kTokenBeforeSnapshot,  /* generations and fence looked at after the query */
	kGenerationsBeforeLook,  /* the fence looked at before the generations are read */
	kTokenBeforeRedis,       /* a hit in Redis kept under generations read after it */
	kVersionsBeforeSnapshot, /* versions read after the query */
	kCompareOfVersions,      /* a value in Redis is believed whatever its versions */
	kWatchOfBareFill,        /* a bare value is stored unconditionally */
	kLookAtOutbox,           /* Redis is asked though deliveries are pending */
	kFenceBeforeLook,        /* remembered that nothing is pending though a writer is committing */
	kGenerationsOfLook,      /* and under the generations of later */
	kNothingKnownAtStart,    /* generations that begin anew are taken for told */
	kDeliveryAfterCommit,    /* Redis is told before the commit, and only then */
	kVersionsBeforeKeys,     /* the worker removes keys before it changes versions */
	kRowsUntilConfirmed,     /* outbox rows removed before Redis has answered */
	kRowsOfVisibleOnly,      /* rows of unfinished transactions are delivered */
	kIncarnation,            /* the envelope does not name the Redis it was stored in */
	kRetained,               /* what was delivered is not repeated to a Redis that forgot */
	kRetainedLongEnough,     /* and is forgotten at once */
	kNonces,                 /* versions count upwards, so they come back after an eviction */
	kNoStoreOnStandby,       /* a standby stores what it sees */
	kWaitOfSync,             /* COMMIT returns before the delivery */
	kNoHitInWriter,
	kNoStoreInWriter,
	kXidOfSnapshot,         /* REPEATABLE READ takes any current value */
	kXidAfterGenerations,   /* it looks at the transactions before the generations */
	kUnknownXid,            /* after a restart no transaction is suspected */
	kOwnerOfSet,            /* a value that was set is given before its transaction commits */
	kLookOfSet,             /* it is kept although another set is committing */
	kGenerationsOfSetFirst, /* it is kept under generations read after that look */
	kCount
};

enum class ReaderKind : u8
{
	kNone,
	kReadCommitted,
	kRepeatableRead,
	kStandby
};

/* What a run may contain, and how often what may go wrong does. */
struct Setting
{
	const char *name;
	int writers;
	ReaderKind readers[kReaders];
	u8 gets[kReaders];
	bool two_phase; /* writers may also prepare, and others commit for them */
	bool sync;
	bool memory; /* the memory tier, which needs preloading */
	bool redis;
	bool sets; /* writers set the value instead of changing what the query reads */
	u8 crashes;
	u8 worker_crashes;
	u8 redis_restarts;
	u8 redis_saves;
	u8 evictions;
};

enum class WriterAt : u8
{
	kIdle,
	kWrote,
	kRead,
	kFenced,
	kRaised,
	kLooked, /* sets only */
	kKept,
	kDurable,
	kVisible,
	kUnlocked,
	kReturned,
	kPrepared,
	kAborted
};

enum class WorkerAt : u8
{
	kIdle,
	kRead,
	kVersions,
	kKeys
};

enum class ReaderAt : u8
{
	kIdle,
	kMissed,
	kGenerations,
	kToken,
	kRemember,
	kTrust,
	kVersions,
	kQueried,
	kKeepHit,
	kStoreMemory,
	kStoreRedis,
	kStoreBare,
	kReturn,
	kFound,
	kLookedFirst,
	kLateToken,
	kDone
};

struct Writer
{
	WriterAt at;
	u8 xid;
	u8 commit_callback; /* it commits by itself, so its callback runs */
	u8 busy;            /* sets: somebody else was committing */
	u8 generations[kWriters];
	u8 order; /* of becoming visible */
};

struct Reader
{
	ReaderAt at;
	u8 left; /* calls of cache_get still to make */
	u8 must; /* writers whose COMMIT had returned when the call began */
	u8 generations[kWriters];
	u8 busy;
	u8 trusted;
	u8 connection; /* the incarnation of Redis it is connected to */
	u8 versions[kWriters];
	u8 watch_broken;
	u8 value;
	u8 hit;
	u8 owner; /* of a found value that was set: writer + 1 */
	u8 snapshot;
	u8 xmin;
	u8 below_xmin;
};

struct Envelope
{
	u8 present;
	u8 incarnation;
	u8 versions[kWriters];
	u8 value;
};

/* What Redis holds. */
struct Contents
{
	u8 versions[kWriters]; /* 0: absent */
	Envelope entry;
	u8 bare; /* a bare value of the key is there */
	u8 bare_value;
};

struct MemoryEntry
{
	u8 present;
	u8 generations[kWriters];
	u8 value;
	u8 owner; /* writer + 1 whose commit it waits for, 0: none */
};

struct State
{
	Writer writers[kWriters];
	Reader readers[kReaders];
	/* PostgreSQL; sets of writers */
	u8 next_xid;
	u8 next_order;
	u8 running;
	u8 durable;
	u8 visible;
	u8 prepared;
	u8 returned;
	u8 outbox;
	u8 retained;
	u8 confirmed;         /* by Redis: for sync */
	u8 known_incarnation; /* the Redis that all deliveries are known to */
	u8 replayed;          /* by the standby */
	u8 fences;            /* locks held */
	/* shared memory */
	u8 generations[kWriters];
	u8 max_xid[kWriters];
	u8 unknown_xid;
	u8 told[kWriters]; /* generations that Redis has heard of, and one; 0: nobody knows */
	MemoryEntry memory;
	/* worker */
	WorkerAt worker;
	u8 batch;
	u8 worker_connection;
	/* Redis */
	u8 incarnation;
	u8 nonce;
	Contents now;
	Contents saved;
	u8 saved_rows; /* retained rows whose removals the saved contents include */
	/* what may still go wrong */
	u8 crashes;
	u8 worker_crashes;
	u8 redis_restarts;
	u8 redis_saves;
	u8 evictions;
};

static_assert(sizeof(State) < 256 && alignof(State) == 1, "states are compared as bytes");

} /* namespace cache_ext::model */
