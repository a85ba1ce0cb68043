/*-------------------------------------------------------------------------
 *
 * server_report.hpp
 *		What INFO says about a server, for those who watch it.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace cache_ext::redis {

/* What a server does not say stays empty. */
struct ServerReport
{
	std::string version; /* "redis 7.0.15", "valkey 8.1.1" */
	std::string role;    /* "master" or "replica" */
	std::optional<int64_t> clients;
	std::optional<int64_t> memory_bytes;
	std::optional<int64_t> keyspace_hits;
	std::optional<int64_t> keyspace_misses;
	std::optional<int64_t> keys; /* of the one database */
	std::string eviction;        /* the policy by which it makes room; empty: it evicts nothing */
	std::optional<bool> appends; /* each write to a file, so that a restart loses none */
};

/* The value of a line "name:value"; empty when there is none. */
std::string_view report_field(std::string_view report, std::string_view name);

ServerReport read_server_report(std::string_view report, int database);

} /* namespace cache_ext::redis */
