/*-------------------------------------------------------------------------
 *
 * widening.hpp
 *		Which coarse item stands for a fine one.
 *
 * The coarse items are what everything that is watched widens to.  They stand
 * for a key, a tag or a pattern when whatever that names is named by them too.
 * Where names that no watch could have made are too many, their forms (shapes.hpp)
 * stand for them.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/invalidation/item.hpp"
#include "core/invalidation/shapes.hpp"

namespace cache_ext::invalidation {

class Widening
{
  public:
	/* Encoded items, which stay where they are; throws when they cannot be read. */
	explicit Widening(std::string_view items);

	/*
	 * An encoded item that says at least what the given one says; empty when there
	 * is none.  It depends on this object.
	 */
	std::string_view covering(ItemKind kind, std::string_view body);

	/*
	 * Learn forms from names that nothing covers; these stay where they are until
	 * settle(), after which the forms cover, too.
	 */
	void learn(ItemKind kind, std::string_view body);
	void settle();

  private:
	struct Coarse
	{
		ItemKind kind;
		std::string_view glob;
		std::string_view whole;
	};

	const Coarse *find(ItemKind kind, std::string_view body) const;
	Shapes *shapes_of(ItemKind kind);
	std::string_view shaped(ItemKind kind, std::string_view body);

	std::vector<Coarse> coarse_;
	Shapes keys_{Shapes::Names::kPlain};
	Shapes tags_{Shapes::Names::kPlain};
	Shapes patterns_{Shapes::Names::kPatterns};
	std::map<std::pair<ItemKind, std::string_view>, std::string> shaped_; /* encoded */
	std::deque<std::string> made_;
};

} /* namespace cache_ext::invalidation */
