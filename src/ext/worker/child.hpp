/*-------------------------------------------------------------------------
 *
 * child.hpp
 *		A process that does for a database's worker what takes long.
 *
 * Invalidations are not to wait for the reading of whole tables or for other
 * people's queries.  The worker starts a child when there is such work, and does
 * not go before it.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/worker/start.hpp"

namespace cache_ext::worker {

class Child
{
  public:
	/* Both texts live as long as the process. */
	Child(const char *name, const char *function) noexcept : name_(name), function_(function) {}

	bool running();

	/* note: what it is to do, in its bgw_extra.  False without a free background process. */
	bool start(char note = '\0');

	/* End it, and wait until it has ended. */
	void stop();

  private:
	const char *name_;
	const char *function_;
	BackgroundWorkerHandle *handle_ = nullptr;
};

} /* namespace cache_ext::worker */
