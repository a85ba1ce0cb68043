/*-------------------------------------------------------------------------
 *
 * key_pattern.cpp
 *		The pattern of a loader; see key_pattern.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "core/cache/key_pattern.hpp"

#include <algorithm>

#include "core/base/error.hpp"
#include "core/invalidation/glob.hpp"

namespace cache_ext::cache {

constexpr size_t kMaxPlaceholders = 16;

/* Trying all ways of cutting a key ends here: no key of a sane pattern comes near. */
constexpr int kMaxSteps = 100000;

[[noreturn]] static void
fail(std::string_view text, const char *what)
{
	throw Error(kInvalidParameterValue,
	            std::string(what) + " in cache key pattern \"" + std::string(text) + "\"", {},
	            "Write {name}, with something between two of them; a brace is {{ or }}.");
}

KeyPattern
KeyPattern::parse(std::string_view text)
{
	KeyPattern pattern;
	std::string literal;
	size_t placeholders = 0;
	auto end_literal = [&] {
		if (!literal.empty())
			pattern.parts_.push_back({std::move(literal), -1});
		literal.clear();
	};

	for (size_t at = 0; at < text.size(); ++at)
	{
		char c = text[at];

		if (c != '{' && c != '}')
		{
			literal.push_back(c);
			continue;
		}
		if (at + 1 < text.size() && text[at + 1] == c)
		{
			literal.push_back(c);
			++at;
			continue;
		}

		size_t close = text.find_first_of("{}", at + 1);

		if (c == '}' || close == std::string_view::npos || text[close] != '}')
			fail(text, "unmatched brace");

		std::string name(text.substr(at + 1, close - at - 1));

		if (name.empty())
			fail(text, "missing name");
		end_literal();
		if (!pattern.parts_.empty() && pattern.parts_.back().name >= 0)
			fail(text, "nothing between two placeholders");
		if (++placeholders > kMaxPlaceholders)
			fail(text, "too many placeholders");

		auto known = std::find(pattern.names_.begin(), pattern.names_.end(), name);

		pattern.parts_.push_back({{}, static_cast<int>(known - pattern.names_.begin())});
		if (known == pattern.names_.end())
			pattern.names_.push_back(std::move(name));
		at = close;
	}
	end_literal();
	return pattern;
}

/* One attempt to cut a key into the parts of a pattern. */
struct KeyPattern::Search
{
	const std::vector<Part> &parts;
	std::string_view key;
	std::vector<std::string_view> found;
	int steps = 0;

	bool from(size_t part, size_t at)
	{
		if (++steps > kMaxSteps)
			return false;
		if (part == parts.size())
			return at == key.size();
		if (parts[part].name < 0)
		{
			const std::string &literal = parts[part].literal;

			return key.compare(at, literal.size(), literal) == 0 &&
			       from(part + 1, at + literal.size());
		}

		std::string_view &value = found[static_cast<size_t>(parts[part].name)];

		if (value.data() != nullptr)
			return key.substr(at, value.size()) == value && from(part + 1, at + value.size());
		for (size_t end = at + 1; end <= key.size() && key[end - 1] != ':'; ++end)
		{
			value = key.substr(at, end - at);
			if (from(part + 1, end))
				return true;
			value = {};
		}
		return false;
	}
};

std::optional<std::vector<std::string_view>>
KeyPattern::match(std::string_view key) const
{
	Search search{parts_, key, std::vector<std::string_view>(names_.size())};

	if (!search.from(0, 0))
		return std::nullopt;
	return std::move(search.found);
}

size_t
KeyPattern::literal_bytes() const
{
	size_t bytes = 0;

	for (const Part &part : parts_)
		bytes += part.literal.size();
	return bytes;
}

std::string
KeyPattern::glob() const
{
	std::string glob;

	for (const Part &part : parts_)
		glob.append(part.name < 0 ? invalidation::glob_escape(part.literal) : "*");
	return glob;
}

std::string
KeyPattern::fill(const std::vector<std::string_view> &values) const
{
	std::string text;

	for (const Part &part : parts_)
		text.append(part.name < 0 ? std::string_view(part.literal)
		                          : values[static_cast<size_t>(part.name)]);
	return text;
}

KeyPattern
KeyPattern::parse_template(std::string_view text) const
{
	KeyPattern made = parse(text);

	for (Part &part : made.parts_)
	{
		if (part.name < 0)
			continue;

		auto known =
		    std::find(names_.begin(), names_.end(), made.names_[static_cast<size_t>(part.name)]);

		if (known == names_.end())
			fail(text, "placeholder that the key does not have");
		part.name = static_cast<int>(known - names_.begin());
	}
	made.names_ = names_;
	return made;
}

} /* namespace cache_ext::cache */
