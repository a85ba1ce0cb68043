/*-------------------------------------------------------------------------
 *
 * limit_table.hpp
 *		States of rate limits by a fingerprint of their keys, in a fixed piece of
 *		plain memory.
 *
 * Open addressing.  A place whose time is over is as good as free and may be given
 * to another key; one that was ever used never becomes empty again, so a search
 * that ends at an empty place has seen all that it could find.  Whoever uses a
 * table holds its lock.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <cstddef>

#include "core/base/digest.hpp"
#include "core/policy/rate_limit.hpp"

namespace cache_ext::policy {

struct LimitPlace
{
	Digest key;
	int64_t until_us; /* what it holds means nothing from then on; 0: never used */
	LimitState state;
};

class LimitTable
{
  public:
	/* All places with until_us = 0 are an empty table. */
	LimitTable(LimitPlace *places, size_t count) noexcept : places_(places), count_(count) {}

	/*
	 * The place of the key, new if it has none.  A null pointer: all places are taken,
	 * unless the one that would be free first may be taken from its key, which is then
	 * forgotten too early (*robbed).  Times are above zero.
	 */
	LimitPlace *find(const Digest &key, int64_t now_us, bool may_rob, bool *robbed) noexcept;

	/* Places in use at this time. */
	size_t used(int64_t now_us) const noexcept;

  private:
	LimitPlace *places_;
	size_t count_;
};

} /* namespace cache_ext::policy */
