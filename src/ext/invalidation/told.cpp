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
}

namespace cache_ext::invalidation {

/* What this process has last seen, and in which outbox. */
static RedisState last_state;
static Oid last_outbox = InvalidOid;

void
forget_last_look() noexcept
{
	last_outbox = InvalidOid;
}

/* A standby's generations count nothing. */
Told::Told(std::vector<uint32> &&generations)
{
	if (!fence_available() || RecoveryInProgress())
		return;
	generations_ = std::move(generations);
	counts_.reserve(generations_.size());
	for (uint32 generation : generations_)
		counts_.push_back(invalidation::generations().count_to_tell(generation));
}

bool
Told::is_known(RedisState *state) const
{
	if (generations_.empty() || !OidIsValid(last_outbox) ||
	    pg::internal_table("outbox") != last_outbox)
		return false;
	for (size_t i = 0; i < generations_.size(); ++i)
		if (!invalidation::generations().is_told(generations_[i], counts_[i]))
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
	last_state = state;
	last_outbox = pg::internal_table("outbox");
	for (size_t i = 0; i < generations_.size() && !fenced_; ++i)
		invalidation::generations().note_told(generations_[i], counts_[i]);
}

} /* namespace cache_ext::invalidation */
