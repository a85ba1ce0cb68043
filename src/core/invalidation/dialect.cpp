/*-------------------------------------------------------------------------
 *
 * dialect.cpp
 *		How cache libraries name in Redis what an application calls by its key.
 *
 *-------------------------------------------------------------------------
 */
#include "core/invalidation/dialect.hpp"

#include <algorithm>

#include "core/base/error.hpp"
#include "core/invalidation/glob.hpp"

namespace cache_ext::invalidation {

namespace {

constexpr size_t kMaxPrefix = 256;

/* Options by name; what nobody has asked for at the end is unknown. */
class Options
{
  public:
	Options(std::string_view dialect, const DialectOptions &given) : dialect_(dialect), left_(given)
	{
	}

	std::string take(std::string_view name, std::string_view otherwise)
	{
		for (size_t i = 0; i < left_.size(); ++i)
		{
			if (left_[i].first != name)
				continue;

			std::string value = left_[i].second;

			left_.erase(left_.begin() + static_cast<std::ptrdiff_t>(i));
			return value;
		}
		return std::string(otherwise);
	}

	void finish() const
	{
		if (!left_.empty())
			throw Error(kInvalidParameterValue, "dialect \"" + dialect_ + "\" has no option \"" +
			                                        left_.front().first + "\"");
	}

  private:
	std::string dialect_;
	DialectOptions left_;
};

/* The text and a separator, or nothing at all. */
std::string
followed(std::string text, std::string_view separator)
{
	return text.empty() ? text : text.append(separator);
}

/* '10' or '10.48'. */
int
major_version(const std::string &text)
{
	size_t digits = std::min(text.find('.'), text.size());

	if (digits == 0 || digits > 4 || text.find_first_not_of("0123456789") < digits)
		throw Error(kInvalidParameterValue, "\"" + text + "\" is not a version");
	return std::stoi(text.substr(0, digits));
}

std::string
without_colons(std::string text)
{
	while (!text.empty() && text.back() == ':')
		text.pop_back();
	return text;
}

std::string
escape_braces(std::string_view text)
{
	std::string escaped;

	for (char c : text)
	{
		escaped.push_back(c);
		if (c == '{' || c == '}')
			escaped.push_back(c);
	}
	return escaped;
}

} /* namespace */

Dialect
read_dialect(std::string_view name, const DialectOptions &given)
{
	Options options(name, given);
	Dialect dialect = {"", false};

	if (name == "plain" || name == "ioredis")
		dialect = {options.take(name == "plain" ? "prefix" : "key_prefix", ""), true};
	else if (name == "django")
	{
		dialect.prefix = options.take("key_prefix", "") + ":";
		dialect.prefix += options.take("version", "1") + ":";
	}
	else if (name == "bentocache")
	{
		dialect.prefix = followed(without_colons(options.take("prefix", "bentocache")), ":");
		dialect.prefix += followed(options.take("namespace", ""), ":");
	}
	else if (name == "fusioncache")
	{
		dialect.prefix = options.take("instance", "");
		dialect.prefix += followed(options.take("version", "v2"), ":");
		dialect.prefix += options.take("key_prefix", "");
	}
	else if (name == "laravel")
	{
		dialect.prefix = options.take("connection_prefix", "");

		std::string prefix = options.take("prefix", "");
		bool separates = major_version(options.take("version", "11")) < 11;

		dialect.prefix += separates ? followed(std::move(prefix), ":") : prefix;
	}
	else if (name == "keyv")
	{
		std::string name_space = options.take("namespace", "keyv");

		dialect.prefix = followed(name_space, "::");
		dialect.prefix += options.take("key_prefix", followed(name_space, ":"));
	}
	else if (name == "rails")
		dialect.prefix = followed(options.take("namespace", ""), ":");
	else if (name == "spring")
	{
		dialect.prefix = options.take("prefix", "");
		dialect.prefix += followed(options.take("cache", ""), "::");
	}
	else if (name == "connect")
		dialect.prefix = options.take("prefix", "sess:");
	else
		throw Error(kInvalidParameterValue, "dialect \"" + std::string(name) + "\" is not known",
		            "",
		            "Known are plain, ioredis, django, bentocache, fusioncache, laravel, keyv, "
		            "rails, spring and connect.");
	options.finish();
	if (dialect.prefix.size() > kMaxPrefix)
		throw Error(kInvalidParameterValue, "prefix of a target is too long");
	if (dialect.prefix.find(kPrefixEnd) != std::string::npos)
		throw Error(kInvalidParameterValue, "prefix of a target must not contain the byte 0x1f");
	return dialect;
}

std::string
key_of_target(std::string_view prefix, std::string_view key)
{
	return escape_braces(prefix).append(key);
}

std::string
pattern_of_target(std::string_view prefix, std::string_view pattern)
{
	return escape_braces(glob_escape(prefix)).append(pattern);
}

std::string
tag_of_target(std::string_view prefix, std::string_view tag)
{
	return (escape_braces(prefix) + kPrefixEnd).append(tag);
}

} /* namespace cache_ext::invalidation */
