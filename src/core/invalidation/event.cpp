/*-------------------------------------------------------------------------
 *
 * event.cpp
 *		The event's JSON; see event.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "core/invalidation/event.hpp"

#include <cinttypes>
#include <cstdio>
#include <ctime>

namespace cache_ext::invalidation {

/* Bytes of the well-formed UTF-8 character at the position, 0 when there is none. */
static size_t
utf8_length(std::string_view text, size_t at)
{
	auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
	unsigned char first = byte(at);
	size_t length;
	unsigned char low = 0x80;
	unsigned char high = 0xbf;

	if (first < 0x80)
		return 1;
	if (first >= 0xc2 && first <= 0xdf)
		length = 2;
	else if (first >= 0xe0 && first <= 0xef)
	{
		length = 3;
		low = first == 0xe0 ? 0xa0 : 0x80;
		high = first == 0xed ? 0x9f : 0xbf;
	}
	else if (first >= 0xf0 && first <= 0xf4)
	{
		length = 4;
		low = first == 0xf0 ? 0x90 : 0x80;
		high = first == 0xf4 ? 0x8f : 0xbf;
	}
	else
		return 0;

	if (at + length > text.size() || byte(at + 1) < low || byte(at + 1) > high)
		return 0;
	for (size_t i = 2; i < length; ++i)
		if (byte(at + i) < 0x80 || byte(at + i) > 0xbf)
			return 0;
	return length;
}

void
append_json_string(std::string &out, std::string_view text)
{
	out.push_back('"');
	for (size_t i = 0; i < text.size();)
	{
		char c = text[i];

		if (c == '"' || c == '\\')
		{
			out.push_back('\\');
			out.push_back(c);
			++i;
		}
		else if (static_cast<unsigned char>(c) < 0x20)
		{
			char escape[8];

			snprintf(escape, sizeof(escape), "\\u%04x", static_cast<unsigned char>(c));
			out += escape;
			++i;
		}
		else if (size_t length = utf8_length(text, i))
		{
			out.append(text, i, length);
			i += length;
		}
		else
		{
			out += "\xef\xbf\xbd";
			++i;
		}
	}
	out.push_back('"');
}

static void
append_list(std::string &out, const char *name, const std::vector<std::string_view> &names)
{
	const char *separator = "";

	out += name;
	out.push_back('[');
	for (std::string_view text : names)
	{
		out += separator;
		append_json_string(out, text);
		separator = ",";
	}
	out.push_back(']');
}

static std::string
iso_milliseconds(int64_t at_us)
{
	auto seconds = static_cast<time_t>(at_us / 1000000);
	int milliseconds = static_cast<int>(at_us % 1000000 / 1000);
	struct tm parts;
	char text[64];

	gmtime_r(&seconds, &parts);
	snprintf(text, sizeof(text), "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", parts.tm_year + 1900,
	         parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
	         milliseconds);
	return text;
}

std::string
encode_event(const Event &event)
{
	std::string out = "{\"v\":1,\"database\":";
	char numbers[192];

	append_json_string(out, event.database);
	snprintf(numbers, sizeof(numbers),
	         ",\"epoch\":%" PRIu64 ",\"seq\":%" PRIu64 ",\"xid\":\"%" PRIu64 "\",\"lsn\":\"%" PRIX32
	         "/%" PRIX32 "\",\"at\":\"",
	         event.epoch, event.seq, event.xid, static_cast<uint32_t>(event.lsn >> 32),
	         static_cast<uint32_t>(event.lsn));
	out += numbers;
	out += iso_milliseconds(event.at_us);
	append_list(out, "\",\"keys\":", event.keys);
	append_list(out, ",\"tags\":", event.tags);
	append_list(out, ",\"patterns\":", event.patterns);
	out += event.all ? ",\"all\":true}" : ",\"all\":false}";
	return out;
}

} /* namespace cache_ext::invalidation */
