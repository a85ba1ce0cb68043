/*-------------------------------------------------------------------------
 *
 * glob.hpp
 *		Glob patterns as Redis understands them: * ? [abc] [^a-z] \x.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string>
#include <string_view>

namespace cache_ext::invalidation {

/*
 * Old versions of Redis need exponential time for patterns of many stars
 * (CVE-2022-36021), so such patterns are refused before they reach any.
 */
constexpr int kMaxPatternStars = 16;

/* The pattern that matches the text and nothing else. */
std::string glob_escape(std::string_view text);

/* The text that every match begins with, escapes resolved. */
std::string glob_literal_prefix(std::string_view pattern);

/* No wildcard at all: the pattern means one name, its literal prefix. */
bool glob_is_literal(std::string_view pattern) noexcept;

int glob_stars(std::string_view pattern) noexcept;

/* Time is bounded by the product of the lengths. */
bool glob_match(std::string_view pattern, std::string_view text) noexcept;

} /* namespace cache_ext::invalidation */
