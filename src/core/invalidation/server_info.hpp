/*-------------------------------------------------------------------------
 *
 * server_info.hpp
 *		What INFO of Redis says about who it is and what it could forget.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace cache_ext::invalidation {

struct ServerInfo
{
	std::string run_id;
	std::string master_replid;
	bool appends = false; /* writes go to an append-only file that is in order */
	int64_t save_age_us =
	    -1; /* since the last complete save began, by Redis's own clock; -1: unknown */
	int replicas = 0;
	uint64_t master_offset = 0;
	uint64_t slowest_replica_offset = 0; /* 0 when one of them is not online */
};

ServerInfo parse_server_info(std::string_view text);

} /* namespace cache_ext::invalidation */
