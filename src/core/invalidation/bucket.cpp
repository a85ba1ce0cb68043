/*-------------------------------------------------------------------------
 *
 * bucket.cpp
 *		Names in Redis that belong to the protocol; see bucket.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "core/invalidation/bucket.hpp"

namespace cache_ext::invalidation {

std::string
version_key(std::string_view key_prefix, uint32_t bucket)
{
	return std::string(key_prefix) + "v:" + std::to_string(bucket);
}

std::string
floor_key(std::string_view key_prefix)
{
	return std::string(key_prefix) + "floor";
}

std::string
event_channel(std::string_view key_prefix)
{
	return std::string(key_prefix).append(kEventsChannel);
}

} /* namespace cache_ext::invalidation */
