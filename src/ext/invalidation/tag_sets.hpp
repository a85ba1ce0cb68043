/*-------------------------------------------------------------------------
 *
 * tag_sets.hpp
 *		Emptying sets of keys together with their members, in bounded steps.
 *
 * A set may have millions of members, and a batch may name thousands of sets:
 * one round trip looks at some members of some sets, whatever there is.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "ext/invalidation/commands.hpp"

namespace cache_ext::invalidation {

class TagSetEmptier
{
  public:
	/* spent() when about so many members have been seen. */
	explicit TagSetEmptier(size_t budget = SIZE_MAX) : budget_(budget) {}

	/* Sets by their keys in Redis. */
	void add(std::vector<TagSet> sets);

	bool done() const { return open_.empty() && waiting_.empty(); }
	bool spent() const { return spent_ >= budget_; }

	/* For the first look to share a round trip with other commands; may be done once more. */
	void ask(Stream *stream);
	void answered(std::vector<redis::Reply> replies) { replies_ = std::move(replies); }

	/* One round trip further: what is known to be a member goes, and more are asked for. */
	void step(const Channel &channel);

	/* The sets that have not been looked at to their ends. */
	std::vector<TagSet> rest() const;

  private:
	struct Open
	{
		TagSet set;
		std::string cursor;
	};

	void open_more();
	void remove_found(Stream *stream);

	std::deque<TagSet> waiting_;
	std::vector<Open> open_;
	std::vector<redis::Reply> replies_; /* one for each open set, or none */
	size_t budget_;
	size_t spent_ = 0;
};

} /* namespace cache_ext::invalidation */
