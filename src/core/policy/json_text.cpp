/*-------------------------------------------------------------------------
 *
 * json_text.cpp
 *		Looking into a JSON text; see json_text.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "core/policy/json_text.hpp"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <unordered_set>

namespace cache_ext::policy {

namespace {

constexpr std::string_view kSpace = " \t\n\r";
constexpr int kMostDigits = 400; /* that an exponent may stand for */

bool
is_digit(char c) noexcept
{
	return c >= '0' && c <= '9';
}

void
append_utf8(std::string *to, uint32_t point)
{
	if (point < 0x80)
		to->push_back(static_cast<char>(point));
	else if (point < 0x800)
	{
		to->push_back(static_cast<char>(0xc0 | point >> 6));
		to->push_back(static_cast<char>(0x80 | (point & 0x3f)));
	}
	else if (point < 0x10000)
	{
		to->push_back(static_cast<char>(0xe0 | point >> 12));
		to->push_back(static_cast<char>(0x80 | (point >> 6 & 0x3f)));
		to->push_back(static_cast<char>(0x80 | (point & 0x3f)));
	}
	else
	{
		to->push_back(static_cast<char>(0xf0 | point >> 18));
		to->push_back(static_cast<char>(0x80 | (point >> 12 & 0x3f)));
		to->push_back(static_cast<char>(0x80 | (point >> 6 & 0x3f)));
		to->push_back(static_cast<char>(0x80 | (point & 0x3f)));
	}
}

std::optional<uint32_t>
code_unit(std::string_view text, size_t at) noexcept
{
	uint32_t unit = 0;

	if (at + 4 > text.size())
		return std::nullopt;

	auto [end, error] = std::from_chars(text.data() + at, text.data() + at + 4, unit, 16);

	if (error != std::errc() || end != text.data() + at + 4)
		return std::nullopt;
	return unit;
}

/* What stands between the quotes, without escapes; nothing for what is no string. */
std::optional<std::string>
unquote(std::string_view value)
{
	static constexpr std::string_view kLetters = "\"\\/bfnrt";
	static constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
	std::string text;

	if (value.size() < 2 || value.front() != '"' || value.back() != '"')
		return std::nullopt;
	value = value.substr(1, value.size() - 2);
	for (size_t at = 0; at < value.size(); ++at)
	{
		if (value[at] != '\\')
		{
			text.push_back(value[at]);
			continue;
		}
		if (++at == value.size())
			return std::nullopt;
		if (value[at] != 'u')
		{
			size_t letter = kLetters.find(value[at]);

			if (letter == std::string_view::npos)
				return std::nullopt;
			text.push_back(kMeanings[letter]);
			continue;
		}

		auto unit = code_unit(value, at + 1);

		if (!unit)
			return std::nullopt;
		at += 4;
		if (*unit >= 0xd800 && *unit < 0xdc00 && value.substr(at + 1, 2) == "\\u")
			if (auto low = code_unit(value, at + 3); low && *low >= 0xdc00 && *low < 0xe000)
			{
				append_utf8(&text, 0x10000 + ((*unit - 0xd800) << 10) + (*low - 0xdc00));
				at += 6;
				continue;
			}
		append_utf8(&text, *unit);
	}
	return text;
}

/* The number without an exponent, and zero without a sign; nothing for what is no number. */
std::optional<std::string>
plain_number(std::string_view value)
{
	bool negative = !value.empty() && value.front() == '-';
	std::string digits;
	int fraction = 0; /* so many of them stand behind the point */
	int exponent = 0;
	size_t at = negative ? 1 : 0;

	while (at < value.size() && is_digit(value[at]))
		digits.push_back(value[at++]);
	if (digits.empty())
		return std::nullopt;
	if (at < value.size() && value[at] == '.')
		for (++at; at < value.size() && is_digit(value[at]); ++fraction)
			digits.push_back(value[at++]);
	if (at < value.size() && (value[at] == 'e' || value[at] == 'E'))
	{
		at += at + 1 < value.size() && value[at + 1] == '+' ? 2 : 1;

		auto [end, error] =
		    std::from_chars(value.data() + at, value.data() + value.size(), exponent);

		if (error != std::errc() || std::abs(exponent) > kMostDigits)
			return std::nullopt;
		at = static_cast<size_t>(end - value.data());
	}
	if (at != value.size())
		return std::nullopt;

	fraction -= exponent;
	if (fraction < 0)
		digits.append(static_cast<size_t>(-fraction), '0');
	fraction = std::max(fraction, 0);
	if (digits.size() <= static_cast<size_t>(fraction))
		digits.insert(0, static_cast<size_t>(fraction) + 1 - digits.size(), '0');

	size_t whole = digits.size() - static_cast<size_t>(fraction);
	size_t zeros = std::min(digits.find_first_not_of('0'), whole - 1);

	if (digits.find_first_not_of('0') == std::string::npos)
		negative = false;
	if (fraction > 0)
		digits.insert(whole, 1, '.');
	digits.erase(0, zeros);
	return (negative ? "-" : "") + digits;
}

/* Goes over the members of one object. */
class Members
{
  public:
	Members(std::string_view json, Span object) : json_(json), at_(object.begin), end_(object.end)
	{
		skip_space();
		good_ = at_ < end_ && json_[at_] == '{';
		++at_;
	}

	/* False: there are no more, or what follows is none. */
	bool next(std::string_view *name, Span *value)
	{
		skip_space();
		if (good_ && at_ < end_ && json_[at_] == ',')
		{
			++at_;
			skip_space();
		}
		if (!good_ || at_ >= end_ || json_[at_] != '"')
			return false;
		*name = take_value().of(json_);
		skip_space();
		if (at_ >= end_ || json_[at_] != ':')
			return false;
		++at_;
		skip_space();
		*value = take_value();
		return value->begin < value->end;
	}

  private:
	void skip_space() { at_ = std::min(json_.find_first_not_of(kSpace, at_), end_); }

	void skip_string()
	{
		for (++at_; at_ < end_ && json_[at_] != '"'; ++at_)
			if (json_[at_] == '\\')
				++at_;
		at_ = std::min(at_ + 1, end_);
	}

	Span take_value()
	{
		size_t begin = at_;
		size_t depth = 0;

		do
		{
			char c = at_ < end_ ? json_[at_] : '\0';

			if (c == '"')
			{
				skip_string();
				continue;
			}
			if (c == '{' || c == '[')
				++depth;
			else if ((c == '}' || c == ']') && depth > 0)
				--depth;
			else if (depth == 0)
			{
				at_ = std::min(json_.find_first_of(",}] \t\n\r", at_), end_);
				break;
			}
			++at_;
		} while (depth > 0 && at_ < end_);
		return {begin, std::min(at_, end_)};
	}

	std::string_view json_;
	size_t at_;
	size_t end_;
	bool good_;
};

/* Names are mostly written without escapes. */
bool
is_named(std::string_view quoted, std::string_view name)
{
	if (quoted.find('\\') == std::string_view::npos)
		return quoted.size() >= 2 && quoted.substr(1, quoted.size() - 2) == name;
	return unquote(quoted) == name;
}

std::optional<Span>
find_member(std::string_view json, Span object, std::string_view wanted)
{
	Members members(json, object);
	std::optional<Span> found;
	std::string_view name;
	Span value;

	while (members.next(&name, &value))
		if (is_named(name, wanted))
			found = value;
	return found;
}

bool
is_text(std::string_view json, const std::optional<Span> &place, std::string_view text)
{
	return place && scalar_text(place->of(json)) == text;
}

} /* namespace */

std::optional<Span>
find_value(std::string_view json, const std::vector<std::string_view> &path)
{
	std::optional<Span> place = Span{0, json.size()};

	for (std::string_view name : path)
		if (place)
			place = find_member(json, *place, name);
	return place;
}

std::optional<std::string>
scalar_text(std::string_view value)
{
	if (value == "true" || value == "false")
		return std::string(value);
	if (!value.empty() && value.front() == '"')
		return unquote(value);
	return plain_number(value);
}

bool
has_field(std::string_view json, std::string_view field, std::string_view value)
{
	std::vector<std::string_view> path;

	if (is_text(json, find_value(json, {field}), value))
		return true;
	if (field.find('.') == std::string_view::npos)
		return false;
	for (size_t begin = 0; begin <= field.size();)
	{
		size_t end = std::min(field.find('.', begin), field.size());

		path.push_back(field.substr(begin, end - begin));
		begin = end + 1;
	}
	return is_text(json, find_value(json, path), value);
}

std::vector<std::string>
member_names(std::string_view json)
{
	Members members(json, {0, json.size()});
	std::vector<std::string> names;
	std::unordered_set<std::string> known;
	std::string_view quoted;
	Span value;

	while (members.next(&quoted, &value))
		if (auto name = unquote(quoted); name && known.insert(*name).second)
			names.push_back(std::move(*name));
	return names;
}

} /* namespace cache_ext::policy */
