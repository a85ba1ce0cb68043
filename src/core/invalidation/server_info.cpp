/*-------------------------------------------------------------------------
 *
 * server_info.cpp
 *		Reading INFO; see server_info.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "core/invalidation/server_info.hpp"

#include <charconv>
#include <map>
#include <optional>

namespace cache_ext::invalidation {

using Fields = std::map<std::string_view, std::string_view>;

static Fields
split_fields(std::string_view text)
{
	Fields fields;

	while (!text.empty())
	{
		size_t end = text.find('\n');
		std::string_view line = text.substr(0, end);

		text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
		if (!line.empty() && line.back() == '\r')
			line.remove_suffix(1);

		size_t colon = line.find(':');

		if (!line.empty() && line.front() != '#' && colon != std::string_view::npos)
			fields[line.substr(0, colon)] = line.substr(colon + 1);
	}
	return fields;
}

static std::optional<int64_t>
number(std::string_view text)
{
	int64_t value = 0;
	auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);

	if (error != std::errc() || end != text.data() + text.size())
		return std::nullopt;
	return value;
}

static std::optional<int64_t>
number(const Fields &fields, std::string_view name)
{
	auto field = fields.find(name);

	return field == fields.end() ? std::nullopt : number(field->second);
}

static std::string_view
text_of(const Fields &fields, std::string_view name)
{
	auto field = fields.find(name);

	return field == fields.end() ? std::string_view() : field->second;
}

/* The part behind "name=" of "ip=...,port=...,state=...,offset=...". */
static std::string_view
attribute(std::string_view line, std::string_view name)
{
	while (!line.empty())
	{
		size_t end = line.find(',');
		std::string_view part = line.substr(0, end);

		line.remove_prefix(end == std::string_view::npos ? line.size() : end + 1);
		if (part.size() > name.size() && part.substr(0, name.size()) == name &&
		    part[name.size()] == '=')
			return part.substr(name.size() + 1);
	}
	return {};
}

static void
read_replicas(const Fields &fields, ServerInfo &info)
{
	info.replicas = static_cast<int>(number(fields, "connected_slaves").value_or(0));
	info.master_offset = static_cast<uint64_t>(number(fields, "master_repl_offset").value_or(0));
	info.slowest_replica_offset = info.master_offset;
	for (int i = 0; i < info.replicas; ++i)
	{
		std::string_view line = text_of(fields, "slave" + std::to_string(i));
		uint64_t offset = 0;

		if (attribute(line, "state") == "online")
			offset = static_cast<uint64_t>(number(attribute(line, "offset")).value_or(0));
		if (offset < info.slowest_replica_offset)
			info.slowest_replica_offset = offset;
	}
}

ServerInfo
parse_server_info(std::string_view text)
{
	Fields fields = split_fields(text);
	ServerInfo info;
	auto now = number(fields, "server_time_usec");
	auto saved = number(fields, "rdb_last_save_time");
	auto took = number(fields, "rdb_last_bgsave_time_sec");

	info.run_id = text_of(fields, "run_id");
	info.master_replid = text_of(fields, "master_replid");
	info.appends = text_of(fields, "aof_enabled") == "1" &&
	               text_of(fields, "aof_last_write_status") == "ok" &&
	               text_of(fields, "aof_last_bgrewrite_status") == "ok";

	/* A server that has never saved reports its start and a duration of -1. */
	if (now && saved && took && *took >= 0 && text_of(fields, "rdb_last_bgsave_status") == "ok")
	{
		constexpr int64_t kSecond = 1000000;

		/* Whole seconds, so up to two of them too young. */
		info.save_age_us = *now - (*saved - *took) * kSecond + 2 * kSecond;
		if (info.save_age_us < 0)
			info.save_age_us = 0;
	}
	read_replicas(fields, info);
	return info;
}

} /* namespace cache_ext::invalidation */
