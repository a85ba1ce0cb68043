/*-------------------------------------------------------------------------
 *
 * key_pattern.hpp
 *		The pattern of a loader: 'campaigns:{tenant_id}:{id}'.
 *
 * A placeholder matches one or more characters but ':', as few as possible; the
 * same name twice must match the same text.  {{ and }} are braces.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cache_ext::cache {

class KeyPattern
{
  public:
	/* Throws Error(22023). */
	static KeyPattern parse(std::string_view text);

	/*
	 * A text with placeholders of this pattern, as a loader's tags are; throws
	 * Error(22023) for a name that the pattern has not.  Only fill() it.
	 */
	KeyPattern parse_template(std::string_view text) const;

	/* The placeholders' texts in the order of names(), as views into the key. */
	std::optional<std::vector<std::string_view>> match(std::string_view key) const;

	/* Each name once, in the order of first appearance: what $1, $2, ... stand for. */
	const std::vector<std::string> &names() const { return names_; }

	/* The more of them, the more a pattern says about its keys. */
	size_t literal_bytes() const;

	/* The glob pattern that matches all that this one matches, and more. */
	std::string glob() const;

	/* The key with these texts in the places of the names; the inverse of match(). */
	std::string fill(const std::vector<std::string_view> &values) const;

  private:
	struct Part
	{
		std::string literal; /* of a part that is no placeholder */
		int name = -1;       /* number of the placeholder's name */
	};
	struct Search;

	std::vector<Part> parts_;
	std::vector<std::string> names_;
};

} /* namespace cache_ext::cache */
