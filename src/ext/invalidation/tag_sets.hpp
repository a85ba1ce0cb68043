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

	/*
	 * Which of the sets there are is asked together with other commands, many in
	 * one: mostly none.  May be asked once more before it is answered.
	 */
	void ask_which(Stream *stream);
	void answered(const std::vector<redis::Reply> &counts);

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

	void ask(Stream *stream);
	void remove_found(Stream *stream);

	std::deque<TagSet> waiting_;
	std::vector<Open> open_;
	std::vector<redis::Reply> replies_; /* one for each open set, or none */
	size_t budget_;
	size_t spent_ = 0;
};

} /* namespace cache_ext::invalidation */
