/*-------------------------------------------------------------------------
 *
 * told.hpp
 *		Knowing, without a look at the outbox, that Redis has been told.
 *
 * Somebody has looked, and no invalidation of some names was pending.  As long as
 * the generations of these names stay what they were before that look, nobody
 * has to look again.  README.md in ext/cache has the argument.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <vector>

#include "ext/invalidation/outbox.hpp"
#include "pg/server.hpp"

namespace cache_ext::invalidation {

class Told
{
  public:
	/* Reads the generations: those of an entry's names, or of several entries'. */
	explicit Told(std::vector<uint32> &&generations);

	/*
	 * Has Redis been told all about them?  Then *state is what was known with that, and
	 * what this process has last seen as well.
	 */
	bool is_known(RedisState *state) const;

	/* Call it before the look takes its snapshot; may raise. */
	void begin_look();

	/* The look has found nothing pending, and this state. */
	void end_look(const RedisState &state) const;

  private:
	std::vector<uint32> generations_;
	std::vector<uint64> counts_;
	bool fenced_ = true;
};

/* The state is perhaps another by now: the next who asks shall look. */
void forget_last_look() noexcept;

} /* namespace cache_ext::invalidation */
