/*-------------------------------------------------------------------------
 *
 * limit_table.cpp
 *		States of rate limits in plain memory; see limit_table.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "core/policy/limit_table.hpp"

namespace cache_ext::policy {

LimitPlace *
LimitTable::find(const Digest &key, int64_t now_us, bool may_rob, bool *robbed) noexcept
{
	LimitPlace *free = nullptr;
	LimitPlace *first_over = nullptr;
	size_t at = key.low % count_;

	*robbed = false;
	for (size_t seen = 0; seen < count_; ++seen, at = at + 1 == count_ ? 0 : at + 1)
	{
		LimitPlace &place = places_[at];

		if (place.until_us != 0 && place.key == key)
			return &place;
		if (free == nullptr && place.until_us <= now_us)
			free = &place;
		if (place.until_us == 0)
			break;
		if (first_over == nullptr || place.until_us < first_over->until_us)
			first_over = &place;
	}
	if (free == nullptr && may_rob)
	{
		free = first_over;
		*robbed = true;
	}
	if (free != nullptr)
		*free = {key, now_us, LimitState()};
	return free;
}

size_t
LimitTable::used(int64_t now_us) const noexcept
{
	size_t used = 0;

	for (size_t i = 0; i < count_; ++i)
		used += places_[i].until_us > now_us ? 1 : 0;
	return used;
}

} /* namespace cache_ext::policy */
