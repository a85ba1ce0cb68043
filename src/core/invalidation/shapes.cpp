/*-------------------------------------------------------------------------
 *
 * shapes.cpp
 *		Patterns that stand for very many names of the same form.
 *
 * Part by part from the left: a value that many names have there stays as it is
 * and its names are looked at alone; what few have becomes '*'.
 *
 *-------------------------------------------------------------------------
 */
#include "core/invalidation/shapes.hpp"

#include <algorithm>
#include <cctype>
#include <unordered_map>

#include "core/invalidation/bucket.hpp"
#include "core/invalidation/glob.hpp"

namespace cache_ext::invalidation {

namespace {

constexpr size_t kMostParts = 32;
constexpr std::string_view kSeparators = ":/.-_";
constexpr char kBeforeDigits = '\0';

bool
is_alphanumeric(char c)
{
	return static_cast<unsigned char>(c) >= 0x80 || std::isalnum(static_cast<unsigned char>(c));
}

bool
says_something(std::string_view text)
{
	return std::any_of(text.begin(), text.end(), is_alphanumeric);
}

} /* namespace */

struct Shapes::Form
{
	char separator;
	std::vector<std::pair<bool, std::string_view>> parts; /* anything, or this */
};

Shapes::Parts
Shapes::split(std::string_view name) const
{
	for (char separator : kSeparators)
	{
		Parts split = {separator, {}};
		size_t from = 0;

		if (name.find(separator) == std::string_view::npos)
			continue;
		for (size_t at; (at = name.find(separator, from)) != std::string_view::npos; from = at + 1)
			split.parts.push_back(name.substr(from, at - from));
		split.parts.push_back(name.substr(from));
		return split;
	}

	size_t digits = std::min(name.find_first_of("0123456789"), name.size());

	return {kBeforeDigits, {name.substr(0, digits), name.substr(digits)}};
}

void
Shapes::add(std::string_view name)
{
	/* What an escape or a class of characters stands for may hold a separator. */
	if (names_ == Names::kPatterns && name.find_first_of("[\\") != std::string_view::npos)
		return;
	added_.push_back(name);
}

void
Shapes::settle(size_t most, size_t at_least)
{
	std::map<std::pair<char, size_t>, Group> groups;

	for (std::string_view name : added_)
	{
		Parts parts = split(name);

		if (parts.parts.size() <= kMostParts)
			groups[{parts.separator, parts.parts.size()}].push_back(std::move(parts));
	}
	at_least = std::max(at_least, added_.size() / most + 1);
	added_ = {};
	for (auto &[key, group] : groups)
		grow(&roots_[key], std::move(group), 0, {key.first, {}}, at_least);
}

void
Shapes::grow(Node *node, Group group, size_t at, Form form, size_t at_least) const
{
	if (group.size() < at_least)
		return;
	if (at == group.front().parts.size())
	{
		node->pattern = text_of(form);
		return;
	}

	std::unordered_map<std::string_view, size_t> counts;
	std::unordered_map<std::string_view, Group> common;
	Group others;

	for (const Parts &name : group)
		++counts[name.parts[at]];
	for (Parts &name : group)
		(counts[name.parts[at]] >= at_least ? common[name.parts[at]] : others)
		    .push_back(std::move(name));
	group = {};
	for (auto &[text, members] : common)
	{
		Form longer = form;
		auto &child = node->literal[std::string(text)];

		longer.parts.emplace_back(false, text);
		child = std::make_unique<Node>();
		grow(child.get(), std::move(members), at + 1, std::move(longer), at_least);
	}
	form.parts.emplace_back(true, std::string_view());
	node->any = std::make_unique<Node>();
	grow(node->any.get(), std::move(others), at + 1, std::move(form), at_least);
}

/* Empty when the form says nothing, or everything. */
std::string
Shapes::text_of(const Form &form) const
{
	std::string text;
	bool says = false;

	for (size_t i = 0; i < form.parts.size(); ++i)
	{
		const auto &[any, part] = form.parts[i];

		if (i > 0 && form.separator != kBeforeDigits)
			text.push_back(form.separator);
		if (any)
			text.push_back('*');
		else
			text.append(names_ == Names::kPatterns ? std::string(part) : glob_escape(part));
		says = says || (!any && says_something(part));
	}
	if (!says || glob_stars(text) > kMaxPatternStars || text.size() > kMaxNameBytes)
		return {};
	return text;
}

std::string_view
Shapes::pattern_of(std::string_view name) const
{
	if (names_ == Names::kPatterns && name.find_first_of("[\\") != std::string_view::npos)
		return {};

	Parts split = this->split(name);
	auto root = roots_.find({split.separator, split.parts.size()});

	if (root == roots_.end())
		return {};

	const Node *node = &root->second;

	for (std::string_view part : split.parts)
	{
		auto next = node->literal.find(part);

		node = next != node->literal.end() ? next->second.get() : node->any.get();
		if (node == nullptr)
			return {};
	}
	return node->pattern;
}

} /* namespace cache_ext::invalidation */
