/*-------------------------------------------------------------------------
 *
 * delivery_wait.hpp
 *		What happens at once comes after what was committed: waiting for the worker
 *		to have delivered it.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "pg/server.hpp"

extern "C" {
#include "datatype/timestamp.h"
}

namespace cache_ext::cache {

/* Begins when it is made and ends with cache_ext.command_timeout. */
class DeliveryWait
{
  public:
	DeliveryWait();

	/* Wakes the worker and waits a moment; false when the time is over.  Obeys query cancel. */
	bool pause() const;

	bool over() const;

  private:
	TimestampTz end_;
};

} /* namespace cache_ext::cache */
