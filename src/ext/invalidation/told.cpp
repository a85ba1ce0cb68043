/*-------------------------------------------------------------------------
 *
 * told.cpp
 *		Knowing that Redis has been told; see told.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/told.hpp"

#include "ext/invalidation/fence.hpp"
#include "pg/objects.hpp"

extern "C" {
#include "access/xlog.h"
#include "miscadmin.h"
}

namespace cache_ext::invalidation {

/* What this process has last seen, in which outbox, and the fingerprint of both. */
static RedisState last_state;
static Oid last_outbox = InvalidOid;
static Digest last_seen{0, 0};

void
forget_last_look() noexcept
{
	last_outbox = InvalidOid;
}

static void
remember_look(const RedisState &state)
{
	last_state = state;
	last_outbox = pg::internal_table("outbox");
	last_seen = Digester()
	                .add(uint64{MyDatabaseId})
	                .add(uint64{last_outbox})
	                .add(state.epoch)
	                .add(uint64{state.has_incarnation})
	                .add(state.incarnation.high)
	                .add(state.incarnation.low)
	                .finish();
}

/* Who has seen the same, and has counted as far, makes the same mark. */
static Digest
mark_of(uint64 count) noexcept
{
	return {last_seen.high ^ (count * UINT64CONST(0x9e3779b97f4a7c15)),
	        last_seen.low ^ (count * UINT64CONST(0xd1b54a32d192ed03))};
}

/* A standby's generations count nothing. */
Told::Told(std::vector<uint32> &&generations)
{
	if (!fence_available() || RecoveryInProgress())
		return;
	generations_ = std::move(generations);
	counts_.reserve(generations_.size());
	for (uint32 generation : generations_)
		counts_.push_back(invalidation::generations()[generation].count.load());
}

bool
Told::is_known(RedisState *state) const
{
	if (generations_.empty() || !OidIsValid(last_outbox) ||
	    pg::internal_table("outbox") != last_outbox)
		return false;
	for (size_t i = 0; i < generations_.size(); ++i)
		if (!invalidation::generations().has_mark(generations_[i], mark_of(counts_[i])))
			return false;
	*state = last_state;
	return true;
}

void
Told::begin_look()
{
	fenced_ = fence_is_up(generations_.data(), static_cast<int>(generations_.size()));
}

void
Told::end_look(const RedisState &state) const
{
	if (generations_.empty())
		return;
	remember_look(state);
	for (size_t i = 0; i < generations_.size() && !fenced_; ++i)
		invalidation::generations().set_mark(generations_[i], mark_of(counts_[i]));
}

} /* namespace cache_ext::invalidation */
