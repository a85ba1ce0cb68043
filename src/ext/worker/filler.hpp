/*-------------------------------------------------------------------------
 *
 * filler.hpp
 *		The process that fills and verifies statistics for a database's worker.
 *
 * Reading whole tables takes as long as it takes, and invalidations are not to
 * wait for it.  The worker starts the filler when something waits to be filled,
 * and does not go before it.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/worker/start.hpp"

namespace cache_ext::worker {

class Filler
{
  public:
	bool running();

	/* Without a free background process the caller has to do the work itself: false. */
	bool start();

	/* End it, and wait until it has ended. */
	void stop();

  private:
	BackgroundWorkerHandle *handle_ = nullptr;
};

} /* namespace cache_ext::worker */
