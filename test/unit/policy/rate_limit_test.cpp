/*-------------------------------------------------------------------------
 *
 * rate_limit_test.cpp
 *		Never more than a limit says, whatever the order, the parts or the clock;
 *		and not less than it says, either.
 *
 *-------------------------------------------------------------------------
 */
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "core/base/error.hpp"
#include "core/policy/rate_limit.hpp"

namespace cache_ext::policy {
namespace {

constexpr int64_t kSecond = 1000 * 1000;

struct Taken
{
	int64_t at; /* by a clock that nobody sets */
	int64_t cost;
};

Limit
gcra(int64_t max, int64_t period, int64_t burst)
{
	return {Algorithm::kGcra, max, period, burst};
}

Limit
windows(Algorithm algorithm, int64_t max, int64_t period)
{
	return {algorithm, max, period, max};
}

/* Sums over every stretch that begins and ends with something taken. */
template <typename Check>
void
for_each_stretch(const std::vector<Taken> &taken, Check &&check)
{
	for (size_t first = 0; first < taken.size(); ++first)
	{
		int64_t sum = 0;

		for (size_t last = first; last < taken.size(); ++last)
		{
			sum += taken[last].cost;
			check(taken[last].at - taken[first].at, sum);
		}
	}
}

/*
 * Requests at random times of a clock that runs well, while the clock that the limit
 * is shown steps back, and back again.
 */
std::vector<Taken>
run(const Limit &limit, std::mt19937_64 *random, bool steps, int requests)
{
	auto below = [&](int64_t n) {
		return static_cast<int64_t>((*random)() % static_cast<uint64_t>(n));
	};
	std::vector<Taken> taken;
	LimitState state;
	int64_t now = 1700000000 * kSecond + below(limit.period_us * 3);
	int64_t behind = 0;
	int64_t most = limit.algorithm == Algorithm::kGcra ? limit.burst : limit.max_requests;

	for (int i = 0; i < requests; ++i)
	{
		/* Mostly about as fast as allowed, now and then a pause. */
		now += below(20) == 0 ? below(limit.period_us * 2)
		                      : below(limit.period_us / limit.max_requests + 2);
		if (steps && below(15) == 0)
			behind += below(limit.period_us * 3);

		int64_t cost = below(4) == 0 ? 1 + below(most) : 1;

		if (decide(limit, cost, now - behind, &state).allowed)
			taken.push_back({now, cost});
		if (below(10) == 0) /* a place where the state is text */
			state = decode_state(limit.algorithm, encode_state(limit.algorithm, state));
	}
	return taken;
}

TEST(RateLimit, GcraNeverGivesMoreThanTheBurstAndTheRate)
{
	std::mt19937_64 random(7);

	for (int round = 0; round < 300; ++round)
	{
		int64_t max = 1 + static_cast<int64_t>(random() % 50);
		int64_t period =
		    1 + static_cast<int64_t>(random() % (round % 2 == 0 ? 100 : 100 * kSecond));
		Limit limit = gcra(max, period, 1 + static_cast<int64_t>(random() % 60));

		/* In exact numbers: sum <= burst + max * stretch / period. */
		for_each_stretch(
		    run(limit, &random, round % 3 != 0, 150), [&](int64_t stretch, int64_t sum) {
			    EXPECT_LE((sum - limit.burst) * period, max * stretch) << "round " << round;
		    });
	}
}

TEST(RateLimit, ASlidingWindowHoldsInEveryStretch)
{
	std::mt19937_64 random(8);

	for (int round = 0; round < 300; ++round)
	{
		int64_t max = 1 + static_cast<int64_t>(random() % 50);
		int64_t period =
		    1 + static_cast<int64_t>(random() % (round % 2 == 0 ? 100 : 100 * kSecond));
		Limit limit = windows(Algorithm::kSlidingWindow, max, period);

		for_each_stretch(
		    run(limit, &random, round % 3 != 0, 150), [&](int64_t stretch, int64_t sum) {
			    if (stretch < period)
			    {
				    EXPECT_LE(sum, max) << "round " << round << ", a stretch of " << stretch;
			    }
		    });
	}
}

TEST(RateLimit, AFixedWindowHoldsInEachOfItsWindows)
{
	std::mt19937_64 random(9);

	for (int round = 0; round < 300; ++round)
	{
		int64_t max = 1 + static_cast<int64_t>(random() % 50);
		int64_t period = 1 + static_cast<int64_t>(random() % (100 * kSecond));
		Limit limit = windows(Algorithm::kFixedWindow, max, period);

		/* A stretch of n periods meets at most n + 1 windows. */
		for_each_stretch(run(limit, &random, round % 3 != 0, 150),
		                 [&](int64_t stretch, int64_t sum) {
			                 EXPECT_LE(sum, max * (stretch / period + 2)) << "round " << round;
		                 });
	}
}

TEST(RateLimit, FixedWindowsBeginWithTheFirstRequest)
{
	Limit limit = windows(Algorithm::kFixedWindow, 3, 10 * kSecond);
	LimitState state;
	int64_t start = 1234567;

	for (int i = 0; i < 3; ++i)
	{
		Verdict verdict = decide(limit, 1, start + i * 3 * kSecond, &state);

		EXPECT_TRUE(verdict.allowed);
		EXPECT_EQ(verdict.remaining, 2 - i);
		EXPECT_EQ(verdict.reset_after_us, 10 * kSecond - i * 3 * kSecond);
	}

	Verdict denied = decide(limit, 1, start + 10 * kSecond - 1, &state);

	EXPECT_FALSE(denied.allowed);
	EXPECT_EQ(denied.retry_after_us, 1);
	EXPECT_TRUE(decide(limit, 3, start + 10 * kSecond, &state).allowed);
}

TEST(RateLimit, WhoWaitsAsLongAsToldIsLetThroughAndNotBefore)
{
	std::mt19937_64 random(10);

	for (int round = 0; round < 3000; ++round)
	{
		auto algorithm = round % 3 == 0   ? Algorithm::kGcra
		                 : round % 3 == 1 ? Algorithm::kFixedWindow
		                                  : Algorithm::kSlidingWindow;
		int64_t max = 1 + static_cast<int64_t>(random() % 30);
		int64_t period = 1 + static_cast<int64_t>(random() % (100 * kSecond));
		Limit limit = {algorithm, max, period, 1 + static_cast<int64_t>(random() % 30)};
		int64_t most = algorithm == Algorithm::kGcra ? limit.burst : max;
		int64_t cost = 1 + static_cast<int64_t>(random() % static_cast<uint64_t>(most));
		LimitState state;
		int64_t now = 1000 * kSecond;
		Verdict verdict;

		while ((verdict = decide(limit, cost, now, &state)).allowed)
			now += static_cast<int64_t>(random() % 3);
		EXPECT_GT(verdict.retry_after_us, 0);

		LimitState early = state;

		EXPECT_FALSE(decide(limit, cost, now + verdict.retry_after_us - 1, &early).allowed);
		EXPECT_TRUE(decide(limit, cost, now + verdict.retry_after_us, &state).allowed);
	}
}

TEST(RateLimit, AfterItsResetAStateIsAsGoodAsNone)
{
	for (auto algorithm : {Algorithm::kGcra, Algorithm::kFixedWindow, Algorithm::kSlidingWindow})
	{
		Limit limit = {algorithm, 7, 3 * kSecond, 7};
		LimitState state;
		int64_t now = 1000 * kSecond + 17;
		Verdict last = decide(limit, 5, now, &state);
		LimitState fresh;

		now += last.reset_after_us;

		Verdict kept = decide(limit, 3, now, &state);
		Verdict none = decide(limit, 3, now, &fresh);

		EXPECT_EQ(kept.allowed, none.allowed);
		EXPECT_EQ(kept.remaining, none.remaining) << name_of(algorithm);
		EXPECT_EQ(kept.reset_after_us, none.reset_after_us) << name_of(algorithm);
	}
}

TEST(RateLimit, GivesWhatItPromisesToWhoAsksAllTheTime)
{
	/* 3 a second in steps that no whole number of microseconds divides. */
	Limit limit = gcra(3, kSecond, 3);
	LimitState state;
	int64_t given = 0;

	for (int64_t now = 0; now <= 100 * kSecond; now += 1000)
		given += decide(limit, 1, now, &state).allowed ? 1 : 0;
	EXPECT_GE(given, 302);
	EXPECT_LE(given, 303);

	/* Nor more, where a request's share of the time is cut to a nanosecond. */
	Limit fine = gcra(600, 1, 10000);

	state = LimitState();
	given = 0;
	for (int64_t now = 0; now < 100; ++now)
		while (decide(fine, 1, now, &state).allowed)
			++given;
	EXPECT_LE(given, 10000 + 99 * 600);
	EXPECT_GE(given, 10000 + 99 * 450);

	/* A sliding window gives all back after a period and a sixteenth. */
	Limit sliding = windows(Algorithm::kSlidingWindow, 100, 16 * kSecond);

	state = LimitState();
	EXPECT_TRUE(decide(sliding, 100, 5 * kSecond, &state).allowed);
	EXPECT_FALSE(decide(sliding, 1, 21 * kSecond - 1, &state).allowed);
	EXPECT_TRUE(decide(sliding, 100, 22 * kSecond, &state).allowed);
}

TEST(RateLimit, AClockThatSteppedBackCostsAPeriodAndNotTheStep)
{
	for (auto algorithm : {Algorithm::kGcra, Algorithm::kFixedWindow, Algorithm::kSlidingWindow})
	{
		Limit limit = {algorithm, 5, kSecond, 5};
		LimitState state;

		EXPECT_TRUE(decide(limit, 5, 1000000 * kSecond, &state).allowed);

		Verdict denied = decide(limit, 1, 10 * kSecond, &state);

		EXPECT_FALSE(denied.allowed);
		EXPECT_LE(denied.retry_after_us, kSecond + kSecond / 8) << name_of(algorithm);
		EXPECT_TRUE(decide(limit, 1, 10 * kSecond + denied.retry_after_us, &state).allowed);
	}
}

TEST(RateLimit, AnotherMaximumGoesOnWithWhatIsKnown)
{
	LimitState state;

	EXPECT_TRUE(decide(gcra(10, 10 * kSecond, 10), 10, 0, &state).allowed);
	EXPECT_FALSE(decide(gcra(20, 10 * kSecond, 20), 1, 0, &state).allowed);
	EXPECT_TRUE(decide(gcra(20, 10 * kSecond, 20), 1, kSecond / 2, &state).allowed);

	state = LimitState();
	EXPECT_TRUE(decide(windows(Algorithm::kFixedWindow, 10, kSecond), 10, 0, &state).allowed);
	EXPECT_EQ(decide(windows(Algorithm::kFixedWindow, 12, kSecond), 1, 0, &state).remaining, 1);
	EXPECT_EQ(decide(windows(Algorithm::kFixedWindow, 3, kSecond), 1, 0, &state).remaining, 0);
}

TEST(RateLimit, StatesAreTextAndBack)
{
	for (auto algorithm : {Algorithm::kGcra, Algorithm::kFixedWindow, Algorithm::kSlidingWindow})
	{
		Limit limit = {algorithm, 1000000, 60 * kSecond, 1000000};
		LimitState state;

		for (int64_t now : {int64_t{1}, kSecond, 20 * kSecond, 59 * kSecond})
			(void) decide(limit, 1234, now, &state);

		std::string text = encode_state(algorithm, state);
		LimitState again = decode_state(algorithm, text);

		EXPECT_EQ(encode_state(algorithm, again), text);
		EXPECT_NE(again.time, LimitState::kNever);
		for (size_t length = 0; length < text.size() - 1; ++length)
			/* A number that is cut short is a number still. */
			if (text[length] == ' ')
			{
				EXPECT_EQ(decode_state(algorithm, text.substr(0, length + 1)).time,
				          LimitState::kNever);
			}
		for (const char *garbage : {"", "x", "g1", "g1 ", "g1 x", "f1 1", "f1 1 -1", "f1 1 1 1",
		                            "s1 1 1", "g2 1", "g1 99999999999999999999", "\xff\x00"})
			EXPECT_EQ(decode_state(algorithm, garbage).time, LimitState::kNever) << garbage;
	}
}

TEST(RateLimit, NoStateHoweverWildBreaksAnything)
{
	std::mt19937_64 random(11);

	for (int round = 0; round < 20000; ++round)
	{
		auto algorithm = round % 3 == 0   ? Algorithm::kGcra
		                 : round % 3 == 1 ? Algorithm::kFixedWindow
		                                  : Algorithm::kSlidingWindow;
		LimitState state;

		state.time = round % 5 == 0   ? INT64_MAX - round % 7
		             : round % 5 == 1 ? INT64_MIN + round % 7
		                              : static_cast<int64_t>(random());
		for (uint32_t &count : state.counts)
			count = static_cast<uint32_t>(random() >> random() % 64);

		Limit limit = {algorithm, 1 + static_cast<int64_t>(random() % INT32_MAX),
		               1 + static_cast<int64_t>(random() % static_cast<uint64_t>(kMaxPeriodUs)), 1};
		Verdict verdict = decide(limit, 1, 1700000000 * kSecond, &state);

		EXPECT_GE(verdict.remaining, 0);
		EXPECT_GE(verdict.retry_after_us, 0);
		EXPECT_GE(verdict.reset_after_us, 0);
		EXPECT_LE(verdict.retry_after_us, kMaxPeriodUs + kMaxPeriodUs / 8);
	}
}

TEST(RateLimit, RefusesNumbersThatMakeNoLimit)
{
	Limit good = gcra(5, kSecond, 5);
	auto refused = [](Limit limit, int64_t cost) {
		try
		{
			check_limit(limit, cost);
		}
		catch (const Error &error)
		{
			return std::string(error.state().code) == "22023";
		}
		return false;
	};

	EXPECT_FALSE(refused(good, 5));
	EXPECT_TRUE(refused(good, 6));
	EXPECT_TRUE(refused(good, 0));
	EXPECT_TRUE(refused(gcra(0, kSecond, 5), 1));
	EXPECT_TRUE(refused(gcra(5, 0, 5), 1));
	EXPECT_TRUE(refused(gcra(5, kMaxPeriodUs + 1, 5), 1));
	EXPECT_TRUE(refused(gcra(5, kSecond, 0), 1));
	EXPECT_TRUE(refused(gcra(1, kMaxPeriodUs, INT32_MAX), 1));
	EXPECT_FALSE(refused(gcra(INT32_MAX, kMaxPeriodUs, INT32_MAX), INT32_MAX));
	EXPECT_TRUE(refused(windows(Algorithm::kFixedWindow, 5, kSecond), 6));
	EXPECT_FALSE(algorithm_of("leaky"));
	EXPECT_EQ(algorithm_of("sliding_window"), Algorithm::kSlidingWindow);
}

} /* namespace */
} /* namespace cache_ext::policy */
