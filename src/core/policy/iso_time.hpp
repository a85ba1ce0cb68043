/*-------------------------------------------------------------------------
 *
 * iso_time.hpp
 *		Times as JavaScript writes them into JSON: 2026-11-21T03:16:00.123Z.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace cache_ext::policy {

/*
 * Milliseconds since 1970.  Date and time with seconds, a fraction perhaps, and Z or
 * an offset such as +02:00; years of four digits, or of six with a sign.
 */
std::optional<int64_t> parse_iso_time(std::string_view text) noexcept;

/* As Date.prototype.toJSON gives it. */
std::string format_iso_time(int64_t ms);

} /* namespace cache_ext::policy */
