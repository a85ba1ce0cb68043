/*-------------------------------------------------------------------------
 *
 * steps.hpp
 *		What writers, readers, the worker and bad luck can do in a state.
 *
 * Every case of a switch is one step that nothing can interrupt; whatever the
 * code does in several is several here.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "explore.hpp"
#include "protocol.hpp"

namespace cache_ext::model {

/* The set of one writer. */
inline u8
bit(int w)
{
	return static_cast<u8>(1 << w);
}

class Steps
{
  public:
	Steps(const Setting &setting, Without without, Explorer<State> *explorer)
	    : setting_(setting), without_(without), explorer_(explorer)
	{
	}

	State start() const;

	/* Takes every step that is possible; returns whether one of them is no fault. */
	bool take_all(const State &state);

	/* Judges a state in which nothing can happen any more. */
	void at_end(const State &state);

	/* Calls of cache_get that were answered from memory, from Redis: so that hits are seen to
	 * happen. */
	uint64_t memory_hits() const { return memory_hits_; }
	uint64_t redis_hits() const { return redis_hits_; }

  private:
	bool lacks(Without what) const { return without_ == what; }
	void reach(State state, const char *step);

	void write(const State &state, int w);
	void end_writing(const State &state, int w);
	void commit_set(const State &state, int w);
	void abort(State *state, int w) const;
	void raise(State *state, int w) const;
	void deliver(const State &state);
	void read(const State &state, int r);
	void load(const State &state, int r);
	void store(const State &state, int r);
	void read_repeatably(const State &state, int r);
	void give(State state, int r, const char *step);
	void go_wrong(const State &state);
	void crash(const State &state);
	void evict(const State &state);

	u8 fresh_version(State *state, int bucket) const;
	void change_versions(State *state, u8 buckets) const;
	bool memory_current(const State &state) const;
	bool is_told(const State &state, const Reader &reader) const;
	bool owner_visible(const State &state, u8 owner) const;
	void ask_redis(State *state, Reader *reader) const;

	const Setting &setting_;
	Without without_;
	Explorer<State> *explorer_;
	bool progressed_ = false;
	uint64_t memory_hits_ = 0;
	uint64_t redis_hits_ = 0;
};

} /* namespace cache_ext::model */
