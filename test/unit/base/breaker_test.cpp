/*-------------------------------------------------------------------------
 *
 * breaker_test.cpp
 *		After a failure one asks for all, later and later, and never two at once.
 *
 *-------------------------------------------------------------------------
 */
#include <gtest/gtest.h>

#include "core/base/breaker.hpp"

namespace cache_ext {
namespace {

constexpr Backoff kBackoff = {100, 1000};
constexpr int64_t kProbeTime = 50;

using Ticket = Breaker::Ticket;
using State = Breaker::State;

bool
ask(Breaker *breaker, int64_t now, Ticket *ticket, bool impatient = false)
{
	return breaker->admit(now, kProbeTime, impatient, ticket);
}

/* A breaker that has just opened at time 0, with the whole pause of 100. */
Breaker
opened()
{
	Breaker breaker;
	Ticket ticket;

	ask(&breaker, 0, &ticket);
	breaker.failure(ticket, 0, kBackoff, 0.999999);
	return breaker;
}

TEST(Backoff, DoublesUpToItsLongestAndKeepsHalfOfItWhateverChanceSays)
{
	int64_t whole = kBackoff.first_us;

	for (uint32_t failures = 1; failures < 100; ++failures)
	{
		EXPECT_EQ(kBackoff.pause(failures, 0.0), whole / 2) << failures;
		EXPECT_GE(kBackoff.pause(failures, 0.999999), whole - 1) << failures;
		EXPECT_LE(kBackoff.pause(failures, 0.999999), whole) << failures;
		whole = std::min<int64_t>(whole * 2, kBackoff.longest_us);
	}
	EXPECT_EQ(whole, kBackoff.longest_us);
}

TEST(Breaker, LetsEverybodyAskWhileAllIsWell)
{
	Breaker breaker;
	Ticket one;
	Ticket other;

	EXPECT_TRUE(ask(&breaker, 0, &one));
	EXPECT_TRUE(ask(&breaker, 0, &other));
	EXPECT_FALSE(one.probe || other.probe);
	EXPECT_FALSE(breaker.success(one));
	EXPECT_EQ(breaker.state(), State::kClosed);
}

TEST(Breaker, OpensAtTheFirstFailureAndLetsOneAskAfterThePause)
{
	Breaker breaker = opened();
	Ticket probe;
	Ticket other;

	EXPECT_EQ(breaker.state(), State::kOpen);
	EXPECT_FALSE(ask(&breaker, 98, &other));
	EXPECT_TRUE(ask(&breaker, 100, &probe));
	EXPECT_TRUE(probe.probe);
	EXPECT_EQ(breaker.state(), State::kHalfOpen);
	EXPECT_FALSE(ask(&breaker, 101, &other));
	EXPECT_TRUE(breaker.success(probe));
	EXPECT_EQ(breaker.state(), State::kClosed);
	EXPECT_EQ(breaker.failures(), 0u);
	EXPECT_TRUE(ask(&breaker, 102, &other));
}

TEST(Breaker, WaitsLongerAfterEachFailedProbe)
{
	Breaker breaker = opened();
	int64_t now = 0;
	int64_t last = 0;

	for (int i = 0; i < 4; ++i)
	{
		Ticket probe;
		int64_t pause = breaker.retry_at() - now;

		EXPECT_GE(pause, last * 2 - 2) << i;
		last = pause;
		now = breaker.retry_at();
		ASSERT_TRUE(ask(&breaker, now, &probe));
		EXPECT_TRUE(breaker.failure(probe, now, kBackoff, 0.999999));
	}
}

TEST(Breaker, TakesFailuresOfOneOutageForOne)
{
	Breaker breaker;
	Ticket tickets[10];

	for (Ticket &ticket : tickets)
		ask(&breaker, 0, &ticket);
	EXPECT_TRUE(breaker.failure(tickets[0], 10, kBackoff, 0.0));

	int64_t retry_at = breaker.retry_at();

	for (Ticket &ticket : tickets)
		EXPECT_FALSE(breaker.failure(ticket, 11, kBackoff, 0.0));
	EXPECT_EQ(breaker.failures(), 1u);
	EXPECT_EQ(breaker.retry_at(), retry_at);
}

TEST(Breaker, BelievesNoSuccessFromBeforeTheFailure)
{
	Breaker breaker;
	Ticket slow;
	Ticket failed;

	ask(&breaker, 0, &slow);
	ask(&breaker, 0, &failed);
	breaker.failure(failed, 10, kBackoff, 0.0);
	EXPECT_FALSE(breaker.success(slow));
	EXPECT_EQ(breaker.state(), State::kOpen);
}

TEST(Breaker, ForgetsAProbeThatNeverReports)
{
	Breaker breaker = opened();
	Ticket lost;
	Ticket probe;

	ASSERT_TRUE(ask(&breaker, 100, &lost));
	EXPECT_FALSE(ask(&breaker, 100 + kProbeTime - 1, &probe));
	ASSERT_TRUE(ask(&breaker, 100 + kProbeTime, &probe));

	/* It comes back after all: nobody listens. */
	EXPECT_FALSE(breaker.success(lost));
	EXPECT_FALSE(breaker.failure(lost, 200, kBackoff, 0.0));
	EXPECT_EQ(breaker.state(), State::kHalfOpen);
	EXPECT_TRUE(breaker.success(probe));
}

TEST(Breaker, LetsTheNextOneAskWhenAProbeWasCancelled)
{
	Breaker breaker = opened();
	Ticket cancelled;
	Ticket probe;

	ASSERT_TRUE(ask(&breaker, 100, &cancelled));
	breaker.abandon(cancelled, 101);
	EXPECT_EQ(breaker.failures(), 1u);
	EXPECT_TRUE(ask(&breaker, 101, &probe));
}

TEST(Breaker, LetsTheImpatientSkipThePauseButNotAProbe)
{
	Breaker breaker = opened();
	Ticket worker;
	Ticket other;

	ASSERT_TRUE(ask(&breaker, 1, &worker, true));
	EXPECT_TRUE(worker.probe);
	EXPECT_FALSE(ask(&breaker, 2, &other, true));
	EXPECT_TRUE(breaker.success(worker));
}

} /* namespace */
} /* namespace cache_ext */
