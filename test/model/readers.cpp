/*-------------------------------------------------------------------------
 *
 * readers.cpp
 *		Calls of cache_get; see steps.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "steps.hpp"

#include <algorithm>

namespace cache_ext::model {

static u8
lowest_running(const State &s)
{
	u8 xmin = s.next_xid;

	for (int w = 0; w < kWriters; ++w)
		if ((s.running & bit(w)) != 0 && s.writers[w].xid < xmin)
			xmin = s.writers[w].xid;
	return xmin;
}

static bool
all_below(const State &s, u8 xmin)
{
	return s.max_xid[0] < xmin && s.max_xid[1] < xmin && s.unknown_xid < xmin;
}

bool
Steps::memory_current(const State &s) const
{
	return setting_.memory && s.memory.present != 0 &&
	       std::equal(s.generations, s.generations + kWriters, s.memory.generations);
}

/* Somebody has looked under the generations that the reader has read. */
bool
Steps::is_told(const State &s, const Reader &reader) const
{
	bool told = setting_.memory;

	for (int b = 0; b < kWriters; ++b)
		told = told && s.told[b] == reader.generations[b] + 1;
	return told;
}

bool
Steps::owner_visible(const State &s, u8 owner) const
{
	return owner == 0 || (s.visible & bit(owner - 1)) != 0;
}

/* A call returns: what may its value not be? */
void
Steps::give(State s, int r, const char *step)
{
	Reader &reader = s.readers[r];
	ReaderKind kind = setting_.readers[r];

	if ((reader.value & ~s.visible) != 0)
		explorer_->fail("P3: a value that was never committed, or not yet", step);
	if (setting_.sets)
	{
		for (int w = 0; w < kWriters; ++w)
			for (int later = 0; later < kWriters; ++later)
				if (reader.hit != 0 && reader.value == bit(w) && (reader.must & bit(later)) != 0 &&
				    s.writers[later].order > s.writers[w].order)
					explorer_->fail("P2: a set that a later one had replaced", step);
	}
	else if (kind == ReaderKind::kReadCommitted && (reader.must & ~reader.value) != 0)
		explorer_->fail("P2: older than a COMMIT that had returned", step);
	else if (kind == ReaderKind::kStandby && reader.hit != 0 && setting_.sync &&
	         (reader.must & ~reader.value) != 0)
		explorer_->fail("P2: older in Redis than a synchronous COMMIT that had returned", step);
	else if (kind == ReaderKind::kRepeatableRead && reader.value != reader.snapshot)
		explorer_->fail("P4: not what the transaction's snapshot shows", step);
	memory_hits_ += reader.hit == 1;
	redis_hits_ += reader.hit == 2;

	Reader next{};

	next.left = static_cast<u8>(reader.left - 1);
	next.at = next.left == 0 ? ReaderAt::kDone : ReaderAt::kIdle;
	if (kind == ReaderKind::kRepeatableRead && next.left != 0)
	{
		next.at = ReaderAt::kMissed;
		next.snapshot = reader.snapshot;
		next.xmin = reader.xmin;
	}
	reader = next;
	reach(s, step);
}

/* One MGET; absent versions are created, but not by a standby. */
void
Steps::ask_redis(State *s, Reader *reader) const
{
	bool standby = setting_.readers[reader - s->readers] == ReaderKind::kStandby;
	const Envelope &entry = s->now.entry;

	reader->connection = s->incarnation;
	reader->watch_broken = 0;
	for (int b = 0; b < kWriters; ++b)
	{
		if (s->now.versions[b] == 0 && !standby)
			s->now.versions[b] = fresh_version(s, b);
		reader->versions[b] = s->now.versions[b];
	}

	bool good = entry.present != 0 && reader->trusted != 0;

	if (!lacks(Without::kIncarnation))
		good = good && entry.incarnation == reader->connection;
	if (!lacks(Without::kCompareOfVersions))
		for (int b = 0; b < kWriters; ++b)
			good = good && reader->versions[b] != 0 && entry.versions[b] == reader->versions[b];
	if (good)
	{
		reader->value = entry.value;
		reader->hit = 2;
	}
}

void
Steps::read(const State &state, int r)
{
	State s = state;
	Reader &reader = s.readers[r];
	bool standby = setting_.readers[r] == ReaderKind::kStandby;

	switch (state.readers[r].at)
	{
	case ReaderAt::kIdle:
		reader.must = s.returned;
		if (standby)
		{
			reader.trusted = 1;
			reader.at = ReaderAt::kTrust;
		}
		else if (memory_current(s))
		{
			reader.value = s.memory.value;
			reader.owner = s.memory.owner;
			reader.hit = 1;
			reader.at = ReaderAt::kFound;
		}
		else
			reader.at = ReaderAt::kMissed;
		reach(s, "reader: cache_get looks into memory");
		break;
	case ReaderAt::kFound:
		reader.at = ReaderAt::kReturn;
		if (!owner_visible(s, reader.owner))
		{
			reader.value = reader.hit = reader.owner = 0;
			reader.at = ReaderAt::kMissed;
		}
		reach(s, "reader: has its setter committed?");
		break;
	case ReaderAt::kMissed:
		if (lacks(Without::kGenerationsBeforeLook))
			reader.busy = s.fences != 0;
		else
			std::copy_n(s.generations, kWriters, reader.generations);
		reader.at = ReaderAt::kGenerations;
		if (lacks(Without::kTokenBeforeSnapshot))
			reader.at = ReaderAt::kToken;
		reach(s, "reader: reads the generations");
		break;
	case ReaderAt::kGenerations:
		if (lacks(Without::kGenerationsBeforeLook))
			std::copy_n(s.generations, kWriters, reader.generations);
		else
			reader.busy = s.fences != 0;
		reader.at = ReaderAt::kToken;
		reach(s, "reader: looks for fences");
		break;
	default:
		load(state, r);
		break;
	}
}

void
Steps::load(const State &state, int r)
{
	State s = state;
	Reader &reader = s.readers[r];
	bool standby = setting_.readers[r] == ReaderKind::kStandby;
	bool late_versions = lacks(Without::kVersionsBeforeSnapshot);

	switch (state.readers[r].at)
	{
	case ReaderAt::kToken:
		reader.at = ReaderAt::kTrust;
		if (!setting_.redis || late_versions)
			reader.at = ReaderAt::kVersions;
		else if (lacks(Without::kLookAtOutbox) || is_told(s, reader))
			reader.trusted = 1;
		else if ((s.outbox & s.visible) == 0)
		{
			reader.trusted = 1;
			if (setting_.memory)
				reader.at = ReaderAt::kRemember;
		}
		reach(s, "reader: looks at the outbox, unless all is known to be told");
		break;
	case ReaderAt::kRemember:
		for (int b = 0; b < kWriters; ++b)
			if (reader.busy == 0 || lacks(Without::kFenceBeforeLook))
				s.told[b] = static_cast<u8>(1 + (lacks(Without::kGenerationsOfLook)
				                                     ? s.generations[b]
				                                     : reader.generations[b]));
		reader.at = ReaderAt::kTrust;
		reach(s, "reader: remembers that nothing is pending");
		break;
	case ReaderAt::kTrust:
		ask_redis(&s, &reader);
		reader.at = ReaderAt::kVersions;
		if (reader.hit != 0)
			reader.at = standby || !setting_.memory ? ReaderAt::kReturn : ReaderAt::kKeepHit;
		reach(s, "reader: value and versions from Redis");
		break;
	case ReaderAt::kKeepHit:
		if (lacks(Without::kTokenBeforeRedis))
		{
			std::copy_n(s.generations, kWriters, reader.generations);
			reader.busy = s.fences != 0;
		}
		store(s, r);
		break;
	case ReaderAt::kVersions:
		reader.value = standby ? s.replayed : s.visible;
		if (setting_.sets)
			reader.value = 0; /* what is set is not what a query reads */
		reader.at = ReaderAt::kStoreMemory;
		if (lacks(Without::kTokenBeforeSnapshot))
			reader.at = ReaderAt::kLateToken;
		if (standby)
			reader.at =
			    lacks(Without::kNoStoreOnStandby) ? ReaderAt::kStoreRedis : ReaderAt::kReturn;
		reach(s, "reader: a snapshot, and the query");
		break;
	case ReaderAt::kLateToken:
		std::copy_n(s.generations, kWriters, reader.generations);
		reader.busy = s.fences != 0;
		reader.at = ReaderAt::kStoreMemory;
		reach(s, "reader: generations and fences, after the query");
		break;
	case ReaderAt::kStoreMemory:
	case ReaderAt::kStoreRedis:
	case ReaderAt::kStoreBare:
		store(state, r);
		break;
	case ReaderAt::kReturn:
		give(s, r, "reader: cache_get returns");
		break;
	default:
		break;
	}
}

void
Steps::store(const State &state, int r)
{
	State s = state;
	Reader &reader = s.readers[r];
	bool standby = setting_.readers[r] == ReaderKind::kStandby;

	switch (state.readers[r].at)
	{
	case ReaderAt::kKeepHit:
	case ReaderAt::kStoreMemory:
		/* What is void already is not stored, and with sets no query's value is. */
		if (setting_.memory && !setting_.sets && reader.busy == 0 &&
		    std::equal(s.generations, s.generations + kWriters, reader.generations))
		{
			s.memory.present = 1;
			std::copy_n(reader.generations, kWriters, s.memory.generations);
			s.memory.value = reader.value;
			s.memory.owner = 0;
		}
		reader.at = reader.hit != 0 || !setting_.redis ? ReaderAt::kReturn : ReaderAt::kStoreRedis;
		reach(s, "reader: keeps the value in memory");
		break;
	case ReaderAt::kStoreRedis:
		if (lacks(Without::kVersionsBeforeSnapshot))
		{
			reader.trusted = 0;
			ask_redis(&s, &reader);
		}
		if (reader.connection == s.incarnation)
		{
			s.now.entry.present = 1;
			s.now.entry.incarnation = reader.connection;
			std::copy_n(reader.versions, kWriters, s.now.entry.versions);
			s.now.entry.value = reader.value;
		}
		reader.at = standby ? ReaderAt::kReturn : ReaderAt::kStoreBare;
		reach(s, "reader: SET in Redis");
		break;
	default:
		if (reader.connection == s.incarnation &&
		    (reader.watch_broken == 0 || lacks(Without::kWatchOfBareFill)))
		{
			s.now.bare = 1;
			s.now.bare_value = reader.value;
		}
		reader.at = ReaderAt::kReturn;
		reach(s, "reader: EXEC of a bare value");
		break;
	}
}

/* The entry and the generations, then the transactions that raised them. */
void
Steps::read_repeatably(const State &state, int r)
{
	State s = state;
	Reader &reader = s.readers[r];
	bool late = lacks(Without::kXidAfterGenerations);

	switch (state.readers[r].at)
	{
	case ReaderAt::kIdle:
		reader.snapshot = s.visible;
		reader.xmin = lowest_running(s);
		reader.at = ReaderAt::kMissed;
		reach(s, "transaction: takes its snapshot");
		break;
	case ReaderAt::kMissed:
		reader.below_xmin = late && all_below(s, reader.xmin);
		reader.at = ReaderAt::kLookedFirst;
		reach(s, "transaction: calls cache_get");
		break;
	case ReaderAt::kLookedFirst:
		reader.at = ReaderAt::kFound;
		reader.hit = memory_current(s);
		reader.value = reader.hit != 0 ? s.memory.value : reader.snapshot;
		reach(s, "transaction: finds the entry, compares the generations");
		break;
	case ReaderAt::kFound: {
		bool below = late ? reader.below_xmin != 0 : all_below(s, reader.xmin);

		if (!below && !lacks(Without::kXidOfSnapshot))
		{
			reader.hit = 0;
			reader.value = reader.snapshot;
		}
		give(s, r, "transaction: cache_get returns");
		break;
	}
	default:
		break;
	}
}

} /* namespace cache_ext::model */
