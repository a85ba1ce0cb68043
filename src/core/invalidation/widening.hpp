/*-------------------------------------------------------------------------
 *
 * widening.hpp
 *		Which coarse item stands for a fine one.
 *
 * The coarse items are what everything that is watched widens to.  They stand
 * for a key, a tag or a pattern when whatever that names is named by them too.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "core/invalidation/item.hpp"

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

  private:
	struct Coarse
	{
		ItemKind kind;
		std::string_view glob;
		std::string_view whole;
	};

	const Coarse *find(ItemKind kind, std::string_view body) const;

	std::vector<Coarse> coarse_;
	std::deque<std::string> made_;
};

} /* namespace cache_ext::invalidation */
