/*-------------------------------------------------------------------------
 *
 * event.hpp
 *		What a delivery tells caches inside applications, as JSON.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cache_ext::invalidation {

struct Event
{
	std::string_view database;
	uint64_t epoch = 0;
	uint64_t seq = 0;  /* contiguous per database and epoch */
	uint64_t xid = 0;  /* the newest transaction told about */
	uint64_t lsn = 0;  /* a server that has replayed up to here has all of them */
	int64_t at_us = 0; /* microseconds since 1970-01-01, UTC */
	std::vector<std::string_view> keys;
	std::vector<std::string_view> tags;
	std::vector<std::string_view> patterns;
	bool all = false;
};

/* One line of JSON, UTF-8; bytes that are none become U+FFFD. */
std::string encode_event(const Event &event);

/* Append the text as a JSON string, quotes included. */
void append_json_string(std::string &out, std::string_view text);

} /* namespace cache_ext::invalidation */
