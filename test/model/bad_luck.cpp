/*-------------------------------------------------------------------------
 *
 * bad_luck.cpp
 *		Crashes, restarts of Redis, evictions; see steps.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "steps.hpp"

#include <algorithm>

namespace cache_ext::model {

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
	std::fill_n(s.told, kWriters, lacks(Without::kNothingKnownAtStart) ? 1 : 0);
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
