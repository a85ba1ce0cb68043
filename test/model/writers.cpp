/*-------------------------------------------------------------------------
 *
 * writers.cpp
 *		Transactions that change, set, commit, prepare or roll back; see steps.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "steps.hpp"

#include <algorithm>

namespace cache_ext::model {

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

} /* namespace cache_ext::model */
