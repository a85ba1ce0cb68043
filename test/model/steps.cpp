/*-------------------------------------------------------------------------
 *
 * steps.cpp
 *		Whose turn it is, and which states are one; see steps.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "steps.hpp"

#include <algorithm>

namespace cache_ext::model {

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

} /* namespace cache_ext::model */
