/*-------------------------------------------------------------------------
 *
 * explore.hpp
 *		Searching all states that a protocol can reach.
 *
 * A state is a flat struct of bytes.  Every step that is possible in a state is
 * taken, breadth first, so a reported run is a shortest one.  A run that could go
 * on for ever shows as a cycle and is an error: without one, every run ends, and
 * what holds in all end states is what happens in the end whatever the schedule.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace cache_ext::model {

template <typename State> class Explorer
{
  public:
	/* Adds what the current state leads to; the step's name must live as long as the explorer. */
	void reach(const State &state, const char *step)
	{
		++transitions_;
		if ((states_.size() + 1) * 2 >= slots_.size())
			grow();

		size_t slot = slot_of(state);

		if (slots_[slot] == kEmpty)
		{
			slots_[slot] = static_cast<uint32_t>(states_.size());
			states_.push_back(state);
			origins_.push_back({current_, step});
		}
		if (started_)
			edges_.push_back({current_, slots_[slot]});
		started_ = true;
	}

	void fail(const char *what, const char *step)
	{
		if (!failure_.empty())
			return;
		failure_ = what;
		failed_ = {current_, step};
	}

	/*
	 * Explore from the start state.  expand(state) calls reach() and fail(), and
	 * returns whether anything but a fault can happen; at_end(state) judges the rest.
	 */
	template <typename Expand, typename AtEnd>
	bool search(const State &start, Expand &&expand, AtEnd &&at_end)
	{
		reach(start, "start");
		for (current_ = 0; current_ < states_.size() && failure_.empty(); ++current_)
		{
			State state = states_[current_];

			if (expand(state))
				continue;
			++ends_;
			at_end(state);
		}
		if (failure_.empty() && !every_run_ends())
			failure_ = "P6: a run can go on for ever";
		return failure_.empty();
	}

	const std::string &failure() const { return failure_; }
	size_t states() const { return states_.size(); }
	size_t ends() const { return ends_; }
	uint64_t transitions() const { return transitions_; }

	/* The steps of the failed run, in order. */
	std::vector<const char *> run() const
	{
		std::vector<const char *> steps{failed_.step};

		for (uint32_t at = failed_.from; at != 0; at = origins_[at].from)
			steps.insert(steps.begin(), origins_[at].step);
		return steps;
	}

  private:
	struct Origin
	{
		uint32_t from;
		const char *step;
	};
	struct Edge
	{
		uint32_t from;
		uint32_t to;
	};

	static constexpr uint32_t kEmpty = UINT32_MAX;

	static uint64_t hash(const State &state)
	{
		auto *bytes = reinterpret_cast<const unsigned char *>(&state);
		uint64_t hash = 0x9e3779b97f4a7c15ULL;

		for (size_t i = 0; i < sizeof(State); i += sizeof(uint64_t))
		{
			uint64_t word = 0;
			size_t left = sizeof(State) - i;

			memcpy(&word, bytes + i, left < sizeof(word) ? left : sizeof(word));
			hash = (hash ^ word) * 0xff51afd7ed558ccdULL;
			hash ^= hash >> 32;
		}
		return hash;
	}

	size_t slot_of(const State &state) const
	{
		size_t slot = hash(state) & (slots_.size() - 1);

		while (slots_[slot] != kEmpty && memcmp(&states_[slots_[slot]], &state, sizeof(State)) != 0)
			slot = (slot + 1) & (slots_.size() - 1);
		return slot;
	}

	void grow()
	{
		slots_.assign(slots_.empty() ? 1 << 16 : slots_.size() * 2, kEmpty);
		for (size_t i = 0; i < states_.size(); ++i)
			slots_[slot_of(states_[i])] = static_cast<uint32_t>(i);
	}

	/* States without an unfinished predecessor are taken away until none is left: no cycle. */
	bool every_run_ends() const
	{
		std::vector<uint32_t> first(states_.size() + 1);
		std::vector<uint32_t> incoming(states_.size());
		std::vector<uint32_t> ready;

		for (const Edge &edge : edges_) /* in order of their origin */
		{
			++first[edge.from + 1];
			++incoming[edge.to];
		}
		for (size_t i = 1; i < first.size(); ++i)
			first[i] += first[i - 1];
		for (uint32_t i = 0; i < states_.size(); ++i)
			if (incoming[i] == 0)
				ready.push_back(i);
		for (size_t n = 0; n < ready.size(); ++n)
			for (uint32_t e = first[ready[n]]; e < first[ready[n] + 1]; ++e)
				if (--incoming[edges_[e].to] == 0)
					ready.push_back(edges_[e].to);
		return ready.size() == states_.size();
	}

	std::vector<State> states_;
	std::vector<Origin> origins_;
	std::vector<uint32_t> slots_;
	std::vector<Edge> edges_;
	uint32_t current_ = 0;
	bool started_ = false;
	std::string failure_;
	Origin failed_{0, ""};
	uint64_t transitions_ = 0;
	size_t ends_ = 0;
};

} /* namespace cache_ext::model */
