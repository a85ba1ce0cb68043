/*-------------------------------------------------------------------------
 *
 * worker.cpp
 *		Deliveries to Redis; see steps.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "steps.hpp"

#include <algorithm>

namespace cache_ext::model {

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

} /* namespace cache_ext::model */
