/*-------------------------------------------------------------------------
 *
 * server_report.cpp
 *		What INFO says about a server; see server_report.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include <charconv>

#include "core/redis/reply.hpp"
#include "core/redis/server_report.hpp"

namespace cache_ext::redis {

std::string_view
report_field(std::string_view report, std::string_view name)
{
	while (!report.empty())
	{
		size_t end = report.find('\n');
		std::string_view line = report.substr(0, end);

		report.remove_prefix(end == std::string_view::npos ? report.size() : end + 1);
		if (line.size() <= name.size() || line.substr(0, name.size()) != name ||
		    line[name.size()] != ':')
			continue;
		line.remove_prefix(name.size() + 1);
		if (!line.empty() && line.back() == '\r')
			line.remove_suffix(1);
		return line;
	}
	return {};
}

static std::optional<int64_t>
read_count(std::string_view text)
{
	int64_t value = 0;
	auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);

	/* What follows a comma belongs to another count. */
	if (error != std::errc() || (end != text.data() + text.size() && *end != ','))
		return std::nullopt;
	return value;
}

/* Valkey calls itself a Redis 7 for old clients' sake, and names itself in a line of its own. */
static std::string
read_version(std::string_view report)
{
	std::string_view name = report_field(report, "server_name");
	std::string_view version;

	if (!name.empty() && name != "redis")
		version = report_field(report, std::string(name) + "_version");
	if (version.empty())
	{
		name = "redis";
		version = report_field(report, "redis_version");
	}
	return version.empty() ? std::string()
	                       : readable(std::string(name) + " " + std::string(version));
}

ServerReport
read_server_report(std::string_view text, int database)
{
	ServerReport report;
	std::string_view role = report_field(text, "role");
	std::string_view keys = report_field(text, "db" + std::to_string(database));
	std::string_view policy = report_field(text, "maxmemory_policy");
	std::string_view appends = report_field(text, "aof_enabled");
	constexpr std::string_view kKeys = "keys=";

	report.version = read_version(text);
	report.role = role == "slave" ? "replica" : readable(role);
	report.clients = read_count(report_field(text, "connected_clients"));
	report.memory_bytes = read_count(report_field(text, "used_memory"));
	report.keyspace_hits = read_count(report_field(text, "keyspace_hits"));
	report.keyspace_misses = read_count(report_field(text, "keyspace_misses"));
	if (keys.substr(0, kKeys.size()) == kKeys)
		report.keys = read_count(keys.substr(kKeys.size()));
	else if (report.clients && keys.empty())
		report.keys = 0; /* a database without keys has no line */
	if (read_count(report_field(text, "maxmemory")).value_or(0) > 0 && policy != "noeviction")
		report.eviction = readable(policy);
	if (!appends.empty())
		report.appends = appends != "0";
	return report;
}

} /* namespace cache_ext::redis */
