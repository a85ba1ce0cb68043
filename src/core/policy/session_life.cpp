/*-------------------------------------------------------------------------
 *
 * session_life.cpp
 *		How long a session lives; see session_life.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "core/policy/session_life.hpp"

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <utility>
#include <vector>

#include "core/base/error.hpp"
#include "core/policy/iso_time.hpp"
#include "core/policy/json_text.hpp"

namespace cache_ext::policy {

namespace {

constexpr std::string_view kCookie = "cookie";
constexpr std::string_view kExpires = "expires";
constexpr std::string_view kFullLife = "originalMaxAge";

/* A value that JavaScript takes for none. */
bool
is_nothing(std::string_view value)
{
	return value == "null" || value == "false" || value == "\"\"" || value == "0";
}

/* Milliseconds that a number says, at most the longest life. */
std::optional<int64_t>
number_of(std::string_view value)
{
	auto text = value.empty() || value.front() == '"' ? std::nullopt : scalar_text(value);

	if (!text || *text == "true" || *text == "false")
		return std::nullopt;
	return static_cast<int64_t>(std::clamp(strtod(text->c_str(), nullptr),
	                                       -static_cast<double>(kMaxLifeMs),
	                                       static_cast<double>(kMaxLifeMs)));
}

/* What a session's JSON says about its life. */
struct Cookie
{
	std::optional<Span> expires; /* none where the cookie has no end of its own */
	std::optional<Span> full_life;

	explicit Cookie(std::string_view json)
	    : expires(find_value(json, {kCookie, kExpires})),
	      full_life(find_value(json, {kCookie, kFullLife}))
	{
		if (expires && is_nothing(expires->of(json)))
			expires.reset();
	}

	std::optional<int64_t> expires_at(std::string_view json) const
	{
		std::string_view value = expires->of(json);

		if (value.front() != '"')
			return number_of(value);

		auto text = scalar_text(value);

		return text ? parse_iso_time(*text) : std::nullopt;
	}
};

using Change = std::pair<Span, std::string>;

std::string
changed(std::string_view json, std::vector<Change> changes)
{
	std::string result(json);

	/* From the end, so that the places before stay where they are. */
	std::sort(changes.begin(), changes.end(),
	          [](const Change &a, const Change &b) { return a.first.begin > b.first.begin; });
	for (const auto &[place, value] : changes)
		result.replace(place.begin, place.end - place.begin, value);
	return result;
}

std::string
quoted_time(int64_t ms)
{
	return '"' + format_iso_time(ms) + '"';
}

} /* namespace */

SessionLife
life_when_set(std::string_view json, int64_t asked_ms, int64_t default_ms, int64_t now_ms)
{
	Cookie cookie(json);

	if (asked_ms == 0 && !cookie.expires)
		return {default_ms, std::string(json)};
	if (asked_ms == 0)
	{
		auto at = cookie.expires_at(json);

		if (!at)
			throw Error(kInvalidParameterValue, "time in the cookie of a session cannot be read",
			            {}, "cookie.expires is null or a time such as 2026-11-21T03:16:00.000Z.");
		return {std::min(*at - now_ms, kMaxLifeMs), std::string(json)};
	}
	if (!cookie.expires)
		return {asked_ms, std::string(json)};

	std::vector<Change> changes{{*cookie.expires, quoted_time(now_ms + asked_ms)}};

	if (cookie.full_life)
		changes.emplace_back(*cookie.full_life, std::to_string(asked_ms));
	return {asked_ms, changed(json, std::move(changes))};
}

SessionLife
life_when_touched(std::string_view json, int64_t left_ms, int64_t default_ms, int64_t now_ms)
{
	Cookie cookie(json);
	int64_t full = default_ms;

	if (cookie.full_life)
		if (auto ms = number_of(cookie.full_life->of(json)); ms && *ms > 0)
			full = *ms;
	full = std::max(full, left_ms);
	if (!cookie.expires)
		return {full, std::string(json)};
	return {full, changed(json, {{*cookie.expires, quoted_time(now_ms + full)}})};
}

std::string
session_id(std::string_view random_bytes)
{
	static const char kDigits[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	std::string id;

	for (size_t at = 0; at + 3 <= random_bytes.size(); at += 3)
	{
		auto byte = [&](size_t i) {
			return static_cast<uint32_t>(static_cast<unsigned char>(random_bytes[at + i]));
		};
		uint32_t bits = byte(0) << 16 | byte(1) << 8 | byte(2);

		for (int shift = 18; shift >= 0; shift -= 6)
			id.push_back(kDigits[bits >> shift & 63]);
	}
	return id;
}

} /* namespace cache_ext::policy */
