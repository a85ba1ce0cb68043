/*-------------------------------------------------------------------------
 *
 * widening.cpp
 *		Which coarse item stands for a fine one.
 *
 *-------------------------------------------------------------------------
 */
#include "core/invalidation/widening.hpp"

#include "core/base/error.hpp"
#include "core/invalidation/glob.hpp"

namespace cache_ext::invalidation {

/* Each costs Redis a look at all of its keys. */
constexpr size_t kMostForms = 16;
constexpr size_t kNamesOfForm = 1000;

namespace {

std::string
encode(ItemKind kind, std::string_view body)
{
	char number[kMaxNumberBytes];
	std::string item(1, static_cast<char>(kind));

	item.append(number, static_cast<size_t>(put_number(number, body.size()) - number));
	return item.append(body);
}

/* The kind of the coarse items that could stand for items of this kind. */
ItemKind
coarse_kind(ItemKind kind)
{
	switch (kind)
	{
	case ItemKind::kKey:
		return ItemKind::kPattern;
	case ItemKind::kTag:
		return ItemKind::kTagPattern;
	case ItemKind::kTagSet:
		return ItemKind::kTagSetPattern;
	default:
		return kind;
	}
}

/*
 * Does one pattern match all that the other matches?  Its text is matched as if
 * it were a name.  That proves it where the coarse one consists of plain
 * characters and asterisks: only those can have taken the wildcards of the fine
 * one, and they take whatever those stand for as well.
 */
bool
contains(std::string_view coarse, std::string_view fine)
{
	return coarse.find_first_of("?[\\") == std::string_view::npos &&
	       fine.find_first_of("[\\") == std::string_view::npos && glob_match(coarse, fine);
}

} /* namespace */

Widening::Widening(std::string_view items)
{
	while (!items.empty())
	{
		std::string_view whole = items;
		Coarse coarse = {};

		if (!take_item(items, coarse.kind, coarse.glob))
			throw Error(kDataCorrupted, "widened items cannot be read");
		coarse.whole = whole.substr(0, whole.size() - items.size());
		if (needs_scan(coarse.kind))
			coarse_.push_back(coarse);
	}
}

const Widening::Coarse *
Widening::find(ItemKind kind, std::string_view body) const
{
	ItemKind wanted = coarse_kind(kind);

	for (const Coarse &coarse : coarse_)
		if (coarse.kind == wanted &&
		    (wanted == kind ? contains(coarse.glob, body) : glob_match(coarse.glob, body)))
			return &coarse;
	return nullptr;
}

Shapes *
Widening::shapes_of(ItemKind kind)
{
	switch (kind)
	{
	case ItemKind::kKey:
		return &keys_;
	case ItemKind::kTag:
		return &tags_;
	case ItemKind::kPattern:
		return &patterns_;
	default:
		return nullptr;
	}
}

void
Widening::learn(ItemKind kind, std::string_view body)
{
	Shapes *shapes = shapes_of(kind);

	if (shapes != nullptr && find(kind, body) == nullptr)
		shapes->add(body);
}

void
Widening::settle()
{
	for (Shapes *shapes : {&keys_, &tags_, &patterns_})
		shapes->settle(kMostForms, kNamesOfForm);
}

std::string_view
Widening::shaped(ItemKind kind, std::string_view body)
{
	Shapes *shapes = shapes_of(kind);
	std::string_view pattern = shapes != nullptr ? shapes->pattern_of(body) : std::string_view();

	if (pattern.empty())
		return {};

	std::string &item = shaped_[{coarse_kind(kind), pattern}];

	if (item.empty())
		item = encode(coarse_kind(kind), pattern);
	return item;
}

std::string_view
Widening::covering(ItemKind kind, std::string_view body)
{
	RepeatBody repeat;

	if (kind != ItemKind::kRepeat)
	{
		const Coarse *coarse = find(kind, body);

		return coarse == nullptr ? shaped(kind, body) : coarse->whole;
	}
	if (!repeat.read(body))
		return {};

	const Coarse *coarse = find(repeat.kind, repeat.name);

	if (coarse == nullptr)
		return {};

	char number[kMaxNumberBytes];
	std::string inner(number, static_cast<size_t>(put_number(number, repeat.after_ms) - number));

	inner.push_back(static_cast<char>(coarse->kind));
	inner.append(coarse->glob);
	made_.push_back(encode(ItemKind::kRepeat, inner));
	return made_.back();
}

} /* namespace cache_ext::invalidation */
