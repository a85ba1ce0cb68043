/*-------------------------------------------------------------------------
 *
 * glob.cpp
 *		Glob patterns; see glob.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "core/invalidation/glob.hpp"

#include <cstddef>

namespace cache_ext::invalidation {

static bool
is_special(char c) noexcept
{
	return c == '*' || c == '?' || c == '[' || c == ']' || c == '\\';
}

std::string
glob_escape(std::string_view text)
{
	std::string escaped;

	escaped.reserve(text.size());
	for (char c : text)
	{
		if (is_special(c))
			escaped.push_back('\\');
		escaped.push_back(c);
	}
	return escaped;
}

/* Length of the part before the first wildcard. */
static size_t
literal_length(std::string_view pattern) noexcept
{
	size_t i = 0;

	while (i < pattern.size())
	{
		char c = pattern[i];

		if (c == '*' || c == '?' || c == '[')
			break;
		i += c == '\\' && i + 1 < pattern.size() ? 2 : 1;
	}
	return i;
}

std::string
glob_literal_prefix(std::string_view pattern)
{
	size_t length = literal_length(pattern);
	std::string prefix;

	for (size_t i = 0; i < length; ++i)
	{
		if (pattern[i] == '\\' && i + 1 < pattern.size())
			++i;
		prefix.push_back(pattern[i]);
	}
	return prefix;
}

bool
glob_is_literal(std::string_view pattern) noexcept
{
	return literal_length(pattern) == pattern.size();
}

int
glob_stars(std::string_view pattern) noexcept
{
	int stars = 0;

	for (size_t i = 0; i < pattern.size(); ++i)
	{
		if (pattern[i] == '\\')
			++i;
		else if (pattern[i] == '*')
			++stars;
	}
	return stars;
}

/*
 * Match one character against the element of the pattern at `at`, which is not
 * a star; moves `at` behind the element.
 */
static bool
match_element(std::string_view pattern, size_t &at, char c) noexcept
{
	char element = pattern[at];

	if (element == '?')
	{
		++at;
		return true;
	}
	if (element == '[')
	{
		bool negated = false;
		bool matched = false;

		++at;
		if (at < pattern.size() && pattern[at] == '^')
		{
			negated = true;
			++at;
		}
		while (at < pattern.size() && pattern[at] != ']')
		{
			auto low = static_cast<unsigned char>(pattern[at]);
			auto high = low;

			if (pattern[at] == '\\' && at + 1 < pattern.size())
			{
				++at;
				low = high = static_cast<unsigned char>(pattern[at]);
			}
			else if (at + 2 < pattern.size() && pattern[at + 1] == '-')
			{
				high = static_cast<unsigned char>(pattern[at + 2]);
				if (low > high)
				{
					auto swap = low;

					low = high;
					high = swap;
				}
				at += 2;
			}
			auto value = static_cast<unsigned char>(c);

			matched = matched || (low <= value && value <= high);
			++at;
		}
		if (at < pattern.size())
			++at; /* the closing bracket */
		return matched != negated;
	}
	if (element == '\\' && at + 1 < pattern.size())
		++at;
	return pattern[at++] == c;
}

/*
 * Only the last star needs to be tried again: what an earlier one could take
 * more, the last one can take as well.
 */
bool
glob_match(std::string_view pattern, std::string_view text) noexcept
{
	size_t at = 0;
	size_t position = 0;
	size_t star = std::string_view::npos; /* pattern position behind the last star */
	size_t star_text = 0;                 /* text position up to which that star has taken */

	for (;;)
	{
		if (at < pattern.size() && pattern[at] == '*')
		{
			star = ++at;
			star_text = position;
			continue;
		}
		if (position == text.size())
			return at == pattern.size();
		if (at < pattern.size() && match_element(pattern, at, text[position]))
		{
			++position;
			continue;
		}
		if (star == std::string_view::npos)
			return false;
		at = star;
		position = ++star_text;
		if (position > text.size())
			return false;
	}
}

} /* namespace cache_ext::invalidation */
