/*-------------------------------------------------------------------------
 *
 * rate_limit.hpp
 *		How many requests are allowed, as arithmetic on time.
 *
 * A limit looks at what is known of a key, at the time of one clock, and says
 * yes or no and what is known from then on.  Whoever keeps the state must do both
 * as one step (README.md argues for the places where it is kept).
 *
 * Every rounding is against the caller, and a clock that has stepped back is taken
 * for one at which nothing has been given back yet, so neither ever lets more
 * through than the limit says.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace cache_ext::policy {

enum class Algorithm : char
{
	kGcra = 'g',         /* a bucket of `burst`, refilled evenly: max_requests a period */
	kFixedWindow = 'f',  /* max_requests in a period that begins with the first request */
	kSlidingWindow = 's' /* max_requests in any stretch of time as long as the period */
};

/* Nothing for a name that is not known. */
std::optional<Algorithm> algorithm_of(std::string_view name) noexcept;
const char *name_of(Algorithm algorithm) noexcept;

/* The longest period: ten years. */
constexpr int64_t kMaxPeriodUs = int64_t{3660} * 24 * 3600 * 1000 * 1000;

struct Limit
{
	Algorithm algorithm;
	int64_t max_requests;
	int64_t period_us;
	int64_t burst; /* of kGcra: what may be taken at once */
};

/* Throws Error(22023) for numbers that make no limit, or a cost that it would never allow. */
void check_limit(const Limit &limit, int64_t cost);

/* A sliding window is counted in so many parts and the one that has begun. */
constexpr int kParts = 16;

/* What is known of a key; plain data that may lie in shared memory. */
struct LimitState
{
	static constexpr int64_t kNever = INT64_MIN;

	/* gcra: when the bucket is full again, in ns; fixed: when the window began, in us; sliding:
	 * number of the newest part; kNever: nothing is known. */
	int64_t time = kNever;
	uint32_t counts[kParts + 1] = {}; /* fixed: the first; sliding: the oldest part first */
};

struct Verdict
{
	bool allowed;
	int64_t remaining;      /* could be taken right after this */
	int64_t retry_after_us; /* until the same cost would be allowed; 0 when it was */
	int64_t reset_after_us; /* until all is as if nothing had ever been asked for */
};

/* Asks for the cost at this moment of a clock, and notes it in the state if it is allowed. */
Verdict decide(const Limit &limit, int64_t cost, int64_t now_us, LimitState *state) noexcept;

/* The state as text; what cannot be read, or is of another algorithm, is no state. */
std::string encode_state(Algorithm algorithm, const LimitState &state);
LimitState decode_state(Algorithm algorithm, std::string_view text) noexcept;

} /* namespace cache_ext::policy */
