/*-------------------------------------------------------------------------
 *
 * rate_limit.cpp
 *		How many requests are allowed; see rate_limit.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "core/policy/rate_limit.hpp"

#include <algorithm>
#include <charconv>
#include <limits>

#include "core/base/error.hpp"

namespace cache_ext::policy {

namespace {

struct NamedAlgorithm
{
	Algorithm algorithm;
	const char *name;
};

constexpr NamedAlgorithm kAlgorithms[] = {{Algorithm::kGcra, "gcra"},
                                          {Algorithm::kFixedWindow, "fixed_window"},
                                          {Algorithm::kSlidingWindow, "sliding_window"}};

/* A full bucket takes no longer than this to fill, so that no sum of times overflows. */
constexpr int64_t kMaxFillNs = int64_t{1} << 61;

constexpr int64_t
divide_up(int64_t a, int64_t b) noexcept
{
	return a / b + (a % b > 0 ? 1 : 0);
}

/* One request's share of the period. */
int64_t
interval_ns(const Limit &limit) noexcept
{
	return divide_up(limit.period_us * 1000, limit.max_requests);
}

Verdict
decide_gcra(const Limit &limit, int64_t cost, int64_t now_us, LimitState *state) noexcept
{
	int64_t interval = interval_ns(limit);
	int64_t capacity = interval * limit.burst;
	int64_t now = now_us * 1000;
	int64_t full_at = std::clamp(state->time, now, now + capacity);
	int64_t after = full_at + interval * cost;
	bool allowed = after <= now + capacity;

	if (allowed)
		full_at = after;
	state->time = full_at;
	return {allowed, (now + capacity - full_at) / interval,
	        allowed ? 0 : divide_up(after - capacity - now, 1000), divide_up(full_at - now, 1000)};
}

Verdict
decide_fixed(const Limit &limit, int64_t cost, int64_t now, LimitState *state) noexcept
{
	bool over = state->time == LimitState::kNever || state->time <= now - limit.period_us;
	int64_t used = over ? 0 : state->counts[0];
	bool allowed = used + cost <= limit.max_requests;

	state->time = over ? now : std::min(state->time, now);
	if (allowed)
		used += cost;
	state->counts[0] = static_cast<uint32_t>(used);

	int64_t left = state->time + limit.period_us - now;

	return {allowed, std::max<int64_t>(limit.max_requests - used, 0), allowed ? 0 : left, left};
}

/* Moves the counts so that the last one is of this part; what has gone by is forgotten. */
void
slide_to(int64_t part, LimitState *state) noexcept
{
	uint32_t *counts = state->counts;

	if (state->time == LimitState::kNever || state->time < part - kParts)
		std::fill(counts, counts + kParts + 1, 0);
	else if (state->time < part)
	{
		auto steps = static_cast<int>(part - state->time);

		std::copy(counts + steps, counts + kParts + 1, counts);
		std::fill(counts + kParts + 1 - steps, counts + kParts + 1, 0);
	}
	else if (state->time > part)
	{
		int64_t all = 0;

		for (int i = 0; i <= kParts; ++i)
			all += counts[i];
		std::fill(counts, counts + kParts, 0);
		counts[kParts] =
		    static_cast<uint32_t>(std::min<int64_t>(all, std::numeric_limits<uint32_t>::max()));
	}
	state->time = part;
}

/*
 * A part counts until a whole period has passed since its end, so what is counted
 * is all of the last period and at most a part more.
 */
Verdict
decide_sliding(const Limit &limit, int64_t cost, int64_t now, LimitState *state) noexcept
{
	int64_t part_us = divide_up(limit.period_us, kParts);
	int64_t part = now / part_us;
	int64_t used = 0;
	auto gone_after = [&](int number) { return (part + number + 1) * part_us - now; };

	slide_to(part, state);
	for (uint32_t count : state->counts)
		used += count;

	bool allowed = used + cost <= limit.max_requests;
	int64_t retry_after = 0;
	int64_t reset_after = 0;

	if (allowed)
	{
		state->counts[kParts] += static_cast<uint32_t>(cost);
		used += cost;
	}
	else
	{
		int64_t left = used;

		for (int i = 0; i <= kParts && left + cost > limit.max_requests; ++i)
		{
			left -= state->counts[i];
			retry_after = gone_after(i);
		}
	}
	for (int i = 0; i <= kParts; ++i)
		if (state->counts[i] > 0)
			reset_after = gone_after(i);
	return {allowed, std::max<int64_t>(limit.max_requests - used, 0), retry_after, reset_after};
}

} /* namespace */

std::optional<Algorithm>
algorithm_of(std::string_view name) noexcept
{
	for (const NamedAlgorithm &each : kAlgorithms)
		if (name == each.name)
			return each.algorithm;
	return std::nullopt;
}

const char *
name_of(Algorithm algorithm) noexcept
{
	for (const NamedAlgorithm &each : kAlgorithms)
		if (algorithm == each.algorithm)
			return each.name;
	return "";
}

void
check_limit(const Limit &limit, int64_t cost)
{
	auto refuse = [](const char *message, std::string detail = {}) {
		throw Error(kInvalidParameterValue, message, std::move(detail));
	};
	int64_t most = limit.algorithm == Algorithm::kGcra ? limit.burst : limit.max_requests;

	if (limit.max_requests < 1)
		refuse("max_requests of a rate limit must be greater than zero");
	if (limit.period_us < 1)
		refuse("period of a rate limit must be greater than zero");
	if (limit.period_us > kMaxPeriodUs)
		refuse("period of a rate limit is too long", "It may have ten years.");
	if (limit.algorithm == Algorithm::kGcra)
	{
		if (limit.burst < 1)
			refuse("burst of a rate limit must be greater than zero");
		if (interval_ns(limit) > kMaxFillNs / limit.burst)
			refuse("burst of a rate limit is too large for its period");
	}
	if (cost < 1)
		refuse("cost of a request must be greater than zero");
	if (cost > most)
		refuse("cost of a request is more than its rate limit ever allows",
		       "It costs " + std::to_string(cost) + ", at most " + std::to_string(most) +
		           " can be taken at once.");
}

Verdict
decide(const Limit &limit, int64_t cost, int64_t now_us, LimitState *state) noexcept
{
	switch (limit.algorithm)
	{
	case Algorithm::kGcra:
		return decide_gcra(limit, cost, now_us, state);
	case Algorithm::kFixedWindow:
		return decide_fixed(limit, cost, now_us, state);
	case Algorithm::kSlidingWindow:
		break;
	}
	return decide_sliding(limit, cost, now_us, state);
}

/* "g1 <time>", "f1 <time> <count>", "s1 <time> <count> ...", the oldest part first. */
static int
counts_of(Algorithm algorithm) noexcept
{
	return algorithm == Algorithm::kGcra          ? 0
	       : algorithm == Algorithm::kFixedWindow ? 1
	                                              : kParts + 1;
}

std::string
encode_state(Algorithm algorithm, const LimitState &state)
{
	std::string text{static_cast<char>(algorithm), '1', ' '};

	text += std::to_string(state.time);
	for (int i = 0; i < counts_of(algorithm); ++i)
		text += ' ' + std::to_string(state.counts[i]);
	return text;
}

LimitState
decode_state(Algorithm algorithm, std::string_view text) noexcept
{
	LimitState state;
	const char *end = text.data() + text.size();
	auto take = [&](auto *number) {
		if (text.empty() || text.front() != ' ')
			return false;

		auto [stopped, error] = std::from_chars(text.data() + 1, end, *number);

		if (error != std::errc())
			return false;
		text.remove_prefix(static_cast<size_t>(stopped - text.data()));
		return true;
	};

	if (text.size() < 2 || text[0] != static_cast<char>(algorithm) || text[1] != '1')
		return state;
	text.remove_prefix(2);

	bool good = take(&state.time);

	for (int i = 0; i < counts_of(algorithm) && good; ++i)
		good = take(&state.counts[i]);
	return good && text.empty() ? state : LimitState();
}

} /* namespace cache_ext::policy */
