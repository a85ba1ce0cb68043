/*-------------------------------------------------------------------------
 *
 * steps.cpp
 *		What writers, readers, the worker and bad luck can do; see steps.hpp.
 *
 * Every case of a switch is one step that nothing can interrupt; whatever the
 * code does in several is several here.
 *
 *-------------------------------------------------------------------------
 */
#include "steps.hpp"

#include <algorithm>

namespace cache_ext::model {

static u8
bit(int w)
{
	return static_cast<u8>(1 << w);
}

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

/* -------------------------------------------------------------------------
 * States that differ only in what nobody will look at are one
 * -------------------------------------------------------------------------
 */

/* Only whether nonces are equal matters: they are renamed in order of appearance. */
static void
rename_nonces(State *s)
{
	u8 highest = 0;

	for (int b = 0; b < kWriters; ++b)
	{
		u8 names[256] = {};
		u8 next = 1;
		auto rename = [&](u8 &nonce) {
			if (nonce == 0)
				return;
			if (names[nonce] == 0)
				names[nonce] = next++;
			nonce = names[nonce];
		};

		rename(s->now.versions[b]);
		rename(s->now.entry.versions[b]);
		rename(s->saved.versions[b]);
		rename(s->saved.entry.versions[b]);
		for (Reader &reader : s->readers)
			rename(reader.versions[b]);
		highest = std::max<u8>(highest, static_cast<u8>(next - 1));
	}
	s->nonce = highest;
}

static void
forget_unused(State *s, const Setting &setting)
{
	bool snapshots = false;

	for (ReaderKind kind : setting.readers)
		snapshots = snapshots || kind == ReaderKind::kRepeatableRead;
	if (!snapshots)
	{
		s->max_xid[0] = s->max_xid[1] = s->next_xid = s->unknown_xid = 0;
		for (Writer &writer : s->writers)
			writer.xid = 0;
	}
	if (s->redis_restarts == 0)
	{
		s->saved = Contents();
		s->redis_saves = 0;
		if (s->known_incarnation == s->incarnation)
			s->retained = s->saved_rows = 0;
	}
	for (Reader &r : s->readers)
		if (r.at == ReaderAt::kReturn)
		{
			Reader kept{};

			kept.at = r.at;
			kept.left = r.left;
			kept.must = r.must;
			kept.value = r.value;
			kept.hit = r.hit;
			kept.owner = r.owner;
			kept.snapshot = r.snapshot;
			kept.xmin = r.xmin;
			r = kept;
		}
}

void
Steps::reach(State state, const char *step)
{
	progressed_ = true;
	forget_unused(&state, setting_);
	if (!lacks(Without::kNonces))
		rename_nonces(&state);
	explorer_->reach(state, step);
}

State
Steps::start() const
{
	State s{};

	s.next_xid = 1;
	s.next_order = 1;
	s.incarnation = s.known_incarnation = 1;
	s.now.bare = s.saved.bare = 1;
	for (int w = setting_.writers; w < kWriters; ++w)
		s.writers[w].at = WriterAt::kAborted;
	for (int r = 0; r < kReaders; ++r)
	{
		s.readers[r].left = setting_.gets[r];
		s.readers[r].at = setting_.gets[r] == 0 ? ReaderAt::kDone : ReaderAt::kIdle;
	}
	s.crashes = setting_.crashes;
	s.worker_crashes = setting_.worker_crashes;
	s.redis_restarts = setting_.redis_restarts;
	s.redis_saves = setting_.redis_saves;
	s.evictions = setting_.evictions;
	return s;
}

bool
Steps::take_all(const State &state)
{
	progressed_ = false;
	for (int w = 0; w < kWriters; ++w)
		write(state, w);
	if (setting_.redis)
		deliver(state);
	for (int r = 0; r < kReaders; ++r)
		if (setting_.readers[r] == ReaderKind::kRepeatableRead)
			read_repeatably(state, r);
		else if (setting_.readers[r] != ReaderKind::kNone)
			read(state, r);

	bool progressed = progressed_;

	go_wrong(state);
	return progressed;
}

void
Steps::at_end(const State &s)
{
	if (s.fences != 0)
		explorer_->fail("P6: a fence is left after every transaction has ended", "the end");
	for (const Reader &reader : s.readers)
		if (reader.at != ReaderAt::kDone)
			explorer_->fail("P6: a reader is stuck", "the end");
	for (const Writer &writer : s.writers)
		if (writer.at != WriterAt::kReturned && writer.at != WriterAt::kAborted)
			explorer_->fail("P6: a writer is stuck", "the end");
	if (!setting_.redis)
		return;
	if (s.now.bare != 0 && (s.visible & ~s.now.bare_value) != 0)
		explorer_->fail("P5: a key that was invalidated is still in Redis", "the end");
	if ((s.outbox & s.visible) != 0)
		explorer_->fail("P5: a committed row was never delivered", "the end");
}

/* -------------------------------------------------------------------------
 * Writers
 * -------------------------------------------------------------------------
 */

void
Steps::raise(State *s, int w) const
{
	s->max_xid[w] = std::max(s->max_xid[w], s->writers[w].xid);
	s->generations[w] += 1;
	/* Sets are all of one key. */
	if (setting_.sets && w != 0)
		s->generations[0] += 1;
}

void
Steps::abort(State *s, int w) const
{
	s->running &= static_cast<u8>(~bit(w));
	s->prepared &= static_cast<u8>(~bit(w));
	if (!lacks(Without::kFenceReleasedOnAbort))
		s->fences &= static_cast<u8>(~bit(w));
	if (lacks(Without::kRowsOfVisibleOnly))
		s->outbox |= bit(w);
	s->writers[w].at = WriterAt::kAborted;
}

void
Steps::write(const State &state, int w)
{
	State s = state;
	Writer &writer = s.writers[w];
	auto aborts = [&](const char *step) {
		State aborted = state;

		abort(&aborted, w);
		reach(aborted, step);
	};

	switch (state.writers[w].at)
	{
	case WriterAt::kIdle:
		writer.xid = s.next_xid++;
		s.running |= bit(w);
		writer.at = WriterAt::kWrote;
		reach(s, "writer: begins, writes rows");
		break;
	case WriterAt::kWrote:
		if (lacks(Without::kNoHitInWriter) && memory_current(s) && (s.memory.value & bit(w)) == 0)
			explorer_->fail("P4: a transaction misses its own write", "writer: cache_get");
		if (lacks(Without::kNoStoreInWriter))
		{
			s.memory.present = 1;
			std::copy_n(s.generations, kWriters, s.memory.generations);
			s.memory.value = s.visible | bit(w);
		}
		writer.at = WriterAt::kRead;
		reach(s, "writer: cache_get, by query");
		break;
	case WriterAt::kRead:
		aborts("writer: rolls back");
		if (lacks(Without::kDeliveryAfterCommit))
		{
			change_versions(&s, bit(w));
			s.now.bare = s.now.entry.present = 0;
		}
		writer.at = WriterAt::kFenced;
		if (lacks(Without::kFenceBeforeGenerations))
			raise(&s, w);
		else if (!lacks(Without::kFence) && !lacks(Without::kRaiseBeforeVisible))
			s.fences |= bit(w);
		reach(s, "writer: before its commit, locks its fence");
		break;
	case WriterAt::kFenced:
		aborts("writer: an error after the fence");
		if (lacks(Without::kFenceBeforeGenerations))
			s.fences |= bit(w);
		else if (!lacks(Without::kRaiseBeforeVisible))
			raise(&s, w);
		writer.at = WriterAt::kRaised;
		reach(s, "writer: raises its generation");
		break;
	case WriterAt::kRaised:
	case WriterAt::kLooked:
		if (setting_.sets)
			commit_set(state, w);
		else
			end_writing(state, w);
		break;
	default:
		end_writing(state, w);
		break;
	}
}

/* Generations, then the look for others, then the value: of a set that is about to commit. */
void
Steps::commit_set(const State &state, int w)
{
	State s = state;
	Writer &writer = s.writers[w];

	if (writer.at == WriterAt::kRaised)
	{
		std::copy_n(s.generations, kWriters, writer.generations);
		writer.busy = (s.fences & ~bit(w)) != 0;
		writer.at = WriterAt::kLooked;
		reach(s, "writer: reads the generations, looks for other fences");
		return;
	}
	if (lacks(Without::kGenerationsOfSetFirst))
		std::copy_n(s.generations, kWriters, writer.generations);

	bool current = std::equal(writer.generations, writer.generations + kWriters, s.generations);

	if (current && (!writer.busy || lacks(Without::kLookOfSet)))
	{
		s.memory.present = 1;
		std::copy_n(writer.generations, kWriters, s.memory.generations);
		s.memory.value = bit(w);
		s.memory.owner = lacks(Without::kOwnerOfSet) ? 0 : static_cast<u8>(w + 1);
	}
	std::fill_n(writer.generations, kWriters, 0);
	writer.busy = 0;
	writer.at = WriterAt::kKept;
	reach(s, "writer: keeps the value it sets");
}

void
Steps::end_writing(const State &state, int w)
{
	State s = state;
	Writer &writer = s.writers[w];

	switch (state.writers[w].at)
	{
	case WriterAt::kRaised:
	case WriterAt::kKept:
		abort(&s, w);
		reach(s, "writer: an error after the generation was raised");
		s = state;
		s.durable |= bit(w);
		if (!lacks(Without::kDeliveryAfterCommit))
			s.outbox |= bit(w);
		writer.commit_callback = 1;
		writer.at = WriterAt::kDurable;
		reach(s, "writer: its commit and outbox row are durable");
		if (!setting_.two_phase)
			break;
		s = state;
		s.prepared |= bit(w);
		writer.at = WriterAt::kPrepared;
		reach(s, "writer: PREPARE TRANSACTION");
		break;
	case WriterAt::kPrepared:
		abort(&s, w);
		reach(s, "another session: ROLLBACK PREPARED");
		s = state;
		s.prepared &= static_cast<u8>(~bit(w));
		s.durable |= bit(w);
		s.outbox |= bit(w);
		writer.at = WriterAt::kDurable;
		reach(s, "another session: COMMIT PREPARED is durable");
		break;
	case WriterAt::kDurable:
		s.running &= static_cast<u8>(~bit(w));
		s.visible |= bit(w);
		if (setting_.sets)
			writer.order = s.next_order++;
		writer.at = WriterAt::kVisible;
		reach(s, "writer: is visible");
		break;
	case WriterAt::kVisible:
		if (lacks(Without::kRaiseBeforeVisible) && writer.commit_callback != 0)
			raise(&s, w);
		s.fences &= static_cast<u8>(~bit(w));
		writer.at = WriterAt::kUnlocked;
		reach(s, "writer: its locks are released");
		break;
	case WriterAt::kUnlocked:
		if (setting_.sync && !lacks(Without::kWaitOfSync) && (s.confirmed & bit(w)) == 0)
			break;
		s.returned |= bit(w);
		writer.at = WriterAt::kReturned;
		reach(s, "writer: COMMIT has returned");
		break;
	default:
		break;
	}
}

/* -------------------------------------------------------------------------
 * The worker
 * -------------------------------------------------------------------------
 */

u8
Steps::fresh_version(State *s, int bucket) const
{
	if (lacks(Without::kNonces))
		return static_cast<u8>(s->now.versions[bucket] + 1);
	return ++s->nonce;
}

void
Steps::change_versions(State *s, u8 buckets) const
{
	for (int b = 0; b < kWriters; ++b)
		if ((buckets & bit(b)) != 0)
			s->now.versions[b] = fresh_version(s, b);
	for (Reader &reader : s->readers)
		reader.watch_broken = 1;
}

void
Steps::deliver(const State &state)
{
	State s = state;
	bool lost = s.worker_connection != s.incarnation;

	if (state.worker != WorkerAt::kIdle && state.worker != WorkerAt::kKeys && lost)
	{
		s.worker = WorkerAt::kIdle;
		s.batch = 0;
		reach(s, "worker: has lost its connection");
		return;
	}
	switch (state.worker)
	{
	case WorkerAt::kIdle: {
		u8 safe = lacks(Without::kRetainedLongEnough) ? s.retained
		                                              : static_cast<u8>(s.retained & s.saved_rows);

		if (safe != 0)
		{
			s.retained &= static_cast<u8>(~safe);
			reach(s, "worker: forgets what Redis has saved");
			s = state;
		}
		if (s.known_incarnation != s.incarnation)
		{
			if (!lacks(Without::kRetained))
			{
				s.outbox |= s.retained;
				s.retained = 0;
			}
			s.known_incarnation = s.incarnation;
			reach(s, "worker: another Redis, retained rows are queued again");
			break;
		}

		u8 rows =
		    lacks(Without::kRowsOfVisibleOnly) ? s.outbox : static_cast<u8>(s.outbox & s.visible);

		if (rows == 0)
			break;
		s.batch = rows;
		s.worker_connection = s.incarnation;
		if (lacks(Without::kRowsUntilConfirmed))
		{
			s.outbox &= static_cast<u8>(~rows);
			s.retained |= rows;
		}
		s.worker = WorkerAt::kRead;
		reach(s, "worker: reads a batch");
		break;
	}
	case WorkerAt::kRead:
		if (lacks(Without::kVersionsBeforeKeys))
			s.now.bare = s.now.entry.present = 0;
		else
			change_versions(&s, s.batch);
		s.worker = WorkerAt::kVersions;
		reach(s, "worker: changes the versions");
		break;
	case WorkerAt::kVersions:
		if ((s.batch & ~s.durable) != 0)
			explorer_->fail("P5: a rolled-back transaction was delivered", "worker: removes keys");
		if (lacks(Without::kVersionsBeforeKeys))
			change_versions(&s, s.batch);
		else
			s.now.bare = s.now.entry.present = 0;
		s.worker = WorkerAt::kKeys;
		reach(s, "worker: removes the keys, has all replies");
		break;
	case WorkerAt::kKeys:
		s.outbox &= static_cast<u8>(~s.batch);
		s.retained |= s.batch;
		if (setting_.sync)
			s.confirmed |= s.batch;
		s.batch = 0;
		s.worker = WorkerAt::kIdle;
		reach(s, "worker: removes the rows, wakes who waits");
		break;
	}
}

/* -------------------------------------------------------------------------
 * Readers
 * -------------------------------------------------------------------------
 */

bool
Steps::memory_current(const State &s) const
{
	return setting_.memory && s.memory.present != 0 &&
	       std::equal(s.generations, s.generations + kWriters, s.memory.generations);
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
		if (setting_.redis)
			reader.trusted = lacks(Without::kLookAtOutbox) || (s.outbox & s.visible) == 0;
		reader.at = !setting_.redis || late_versions ? ReaderAt::kVersions : ReaderAt::kTrust;
		reach(s, "reader: looks at the outbox");
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

/* -------------------------------------------------------------------------
 * Bad luck
 * -------------------------------------------------------------------------
 */

/* One backend killed or the whole server: shared memory starts empty either way. */
void
Steps::crash(const State &state)
{
	State s = state;

	s.crashes -= 1;
	for (int w = 0; w < kWriters; ++w)
	{
		WriterAt at = s.writers[w].at;

		if (at >= WriterAt::kWrote && at <= WriterAt::kKept)
		{
			s.running &= static_cast<u8>(~bit(w));
			s.writers[w] = Writer();
			s.writers[w].at = WriterAt::kAborted;
		}
		else if (at >= WriterAt::kDurable && at <= WriterAt::kUnlocked)
		{
			s.running &= static_cast<u8>(~bit(w));
			s.visible |= bit(w);
			if (!setting_.sync)
				s.returned |= bit(w);
			s.writers[w].at = WriterAt::kReturned;
		}
	}
	s.fences = lacks(Without::kFenceOverRestart) ? 0 : s.prepared;
	std::fill_n(s.generations, kWriters, 0);
	std::fill_n(s.max_xid, kWriters, 0);
	s.unknown_xid = lacks(Without::kUnknownXid) ? 0 : static_cast<u8>(s.next_xid - 1);
	s.memory = MemoryEntry();
	s.confirmed = s.batch = s.worker_connection = 0;
	s.worker = WorkerAt::kIdle;
	for (int r = 0; r < kReaders; ++r)
		if (setting_.readers[r] != ReaderKind::kStandby)
		{
			u8 left = s.readers[r].left;

			s.readers[r] = Reader();
			s.readers[r].left = left;
			s.readers[r].at = left == 0 ? ReaderAt::kDone : ReaderAt::kIdle;
		}
	reach(s, "CRASH of a backend or the server: shared memory begins empty");
}

void
Steps::evict(const State &state)
{
	State s = state;

	s.evictions -= 1;
	if (state.memory.present != 0)
	{
		s.memory = MemoryEntry();
		reach(s, "eviction from memory");
		s.memory = state.memory;
	}
	if (state.now.entry.present != 0)
	{
		s.now.entry = Envelope();
		reach(s, "eviction of the value from Redis");
		s.now.entry = state.now.entry;
	}
	for (int b = 0; b < kWriters; ++b)
		if (state.now.versions[b] != 0)
		{
			State gone = s;

			gone.now.versions[b] = 0;
			for (Reader &reader : gone.readers)
				reader.watch_broken = 1;
			reach(gone, "eviction of a version from Redis");
		}
}

void
Steps::go_wrong(const State &state)
{
	State s = state;

	if (state.crashes != 0)
		crash(state);
	if (state.worker_crashes != 0 && state.worker != WorkerAt::kIdle)
	{
		s.worker_crashes -= 1;
		s.worker = WorkerAt::kIdle;
		s.batch = s.worker_connection = 0;
		reach(s, "CRASH of the worker, or its replies are lost");
		s = state;
	}
	if (state.redis_saves != 0)
	{
		s.redis_saves -= 1;
		s.saved = s.now;
		s.saved_rows = s.known_incarnation == s.incarnation ? s.retained : 0;
		reach(s, "Redis saves, or its replica has everything");
		s = state;
	}
	if (state.redis_restarts != 0)
	{
		s.redis_restarts -= 1;
		s.incarnation += 1;
		s.now = s.saved;
		reach(s, "Redis comes back with OLD data");
		s.now = s.saved = Contents();
		s.saved_rows = 0;
		reach(s, "Redis comes back EMPTY");
		s = state;
	}
	if (state.evictions != 0)
		evict(state);
	for (int r = 0; r < kReaders; ++r)
		if (setting_.readers[r] == ReaderKind::kStandby)
			for (int w = 0; w < kWriters; ++w)
				if ((state.visible & ~state.replayed & bit(w)) != 0)
				{
					s = state;
					s.replayed |= bit(w);
					reach(s, "standby: replays a commit");
				}
}

} /* namespace cache_ext::model */
