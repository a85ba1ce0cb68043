/*-------------------------------------------------------------------------
 *
 * functions.cpp
 *		rate_limit, as SQL calls it.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/limits/limits.hpp"

#include <string>

#include "core/base/error.hpp"
#include "ext/cache/arguments.hpp"
#include "ext/cache/counters.hpp"
#include "ext/invalidation/items.hpp"
#include "pg/guard.hpp"
#include "pg/memory.hpp"
#include "pg/redis_link.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(cache_ext_rate_limit);
PG_FUNCTION_INFO_V1(cache_ext_limit_figures);
}

namespace cache_ext::limits {

using cache::count;
using cache::Tally;

namespace {

constexpr int kColumns = 4; /* of rate_limit() */

enum Argument
{
	kKey,
	kMaxRequests,
	kPeriod,
	kCost,
	kBurst,
	kAlgorithm
};

constexpr const char *kWhat[] = {"key of a rate limit",    "max_requests of a rate limit",
                                 "period of a rate limit", "cost of a request",
                                 "burst of a rate limit",  "algorithm of a rate limit"};

int64
period_us(const Interval *period)
{
	double us = (static_cast<double>(period->month) * DAYS_PER_MONTH + period->day) *
	                static_cast<double>(USECS_PER_DAY) +
	            static_cast<double>(period->time);

	/* What check_limit() refuses is refused there. */
	return us < 1.0                                               ? 0
	       : us > static_cast<double>(policy::kMaxPeriodUs) * 2.0 ? policy::kMaxPeriodUs + 1
	                                                              : static_cast<int64>(us);
}

policy::Limit
limit_arguments(FunctionCallInfo fcinfo)
{
	policy::Limit limit{};
	std::string_view algorithm = pg::view(PG_GETARG_TEXT_PP(kAlgorithm));
	auto known = policy::algorithm_of(algorithm);

	if (!known)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("unknown algorithm \"%.*s\" of a rate limit",
		                       static_cast<int>(algorithm.size()), algorithm.data()),
		                errhint("Give 'gcra', 'fixed_window' or 'sliding_window'.")));
	limit.algorithm = *known;
	limit.max_requests = PG_GETARG_INT32(kMaxRequests);
	limit.period_us = period_us(PG_GETARG_INTERVAL_P(kPeriod));
	limit.burst = PG_ARGISNULL(kBurst) ? limit.max_requests : PG_GETARG_INT32(kBurst);
	if (limit.algorithm != policy::Algorithm::kGcra && !PG_ARGISNULL(kBurst))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("algorithm '%s' of a rate limit has no burst",
		                       policy::name_of(limit.algorithm)),
		                errhint("Leave burst out, or use 'gcra'.")));
	return limit;
}

/* What is said, and whether anybody knows. */
struct Answer
{
	policy::Verdict verdict;
	bool decided;
};

[[noreturn]] void
refuse_to_guess()
{
	std::string why = pg::redis_configured() ? pg::redis_health_status().last_error : "";

	if (!pg::redis_configured())
		throw Error({"53400"}, "too many rate limits are in use at once",
		            "The shared memory for them is full.",
		            "Set cache_ext.redis_url, or set cache_ext.rate_limit_on_failure to another "
		            "value than 'error'.");
	throw Error(kConnectionFailure,
	            "could not count a request in Redis server \"" + pg::redis_name() + "\"",
	            why.empty() ? "" : "The last failure was: " + why);
}

/* Where it belongs, and what there is instead when that cannot be asked. */
Answer
answer(std::string_view key, const policy::Limit &limit, int64 cost)
{
	auto policy_now = static_cast<pg::LimitOnFailure>(pg::rate_limit_on_failure);
	bool strict = policy_now == pg::kLimitDeny || policy_now == pg::kLimitError;
	std::optional<policy::Verdict> verdict;

	policy::check_limit(limit, cost);
	if (!pg::redis_configured())
		verdict = decide_in_memory(key, limit, cost, !strict);
	else
	{
		verdict = decide_in_redis(key, limit, cost);
		if (!verdict)
			count(Tally::kLimitUndecided);
		if (!verdict && policy_now == pg::kLimitLocal)
			verdict = decide_in_memory(key, limit, cost, true);
	}
	if (verdict)
		return {*verdict, true};
	if (policy_now == pg::kLimitError)
		refuse_to_guess();
	return {{policy_now != pg::kLimitDeny, 0, 0, 0}, false};
}

Datum
interval_datum(int64 us)
{
	auto *interval = static_cast<Interval *>(palloc0(sizeof(Interval)));

	interval->time = us;
	return IntervalPGetDatum(interval);
}

} /* namespace */

} /* namespace cache_ext::limits */

using namespace cache_ext;
using namespace cache_ext::limits;

extern "C" {

/* rate_limit(key, max_requests, period, cost, burst, algorithm) */
Datum
cache_ext_rate_limit(PG_FUNCTION_ARGS)
{
	TupleDesc columns;
	Datum values[kColumns];
	bool nulls[kColumns] = {};

	for (int i : {kKey, kMaxRequests, kPeriod, kCost, kAlgorithm})
		if (PG_ARGISNULL(i))
			cache::refuse_null(kWhat[i]);
	if (get_call_result_type(fcinfo, nullptr, &columns) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	std::string_view key = pg::view(PG_GETARG_TEXT_PP(kKey));

	invalidation::check_name(key, kWhat[kKey]);
	invalidation::check_allowed(key, kWhat[kKey]);

	policy::Limit limit = limit_arguments(fcinfo);
	int64 cost = PG_GETARG_INT32(kCost);
	Answer given = pg::guard([&] { return answer(key, limit, cost); });

	count(given.verdict.allowed ? Tally::kLimitAllowed : Tally::kLimitDenied);
	values[0] = BoolGetDatum(given.verdict.allowed);
	values[1] = Int32GetDatum(static_cast<int32>(given.verdict.remaining));
	values[2] = interval_datum(given.verdict.retry_after_us);
	values[3] = TimestampTzGetDatum(GetCurrentTimestamp() + given.verdict.reset_after_us);
	nulls[1] = nulls[2] = nulls[3] = !given.decided;
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(columns), values, nulls));
}

/* cache_ext_internal.limit_figures(): limits in memory, and room for them */
Datum
cache_ext_limit_figures(PG_FUNCTION_ARGS)
{
	TupleDesc columns;
	MemoryFigures figures = memory_figures();
	Datum values[] = {Int64GetDatum(figures.used), Int64GetDatum(figures.room)};
	bool nulls[] = {false, false};

	if (get_call_result_type(fcinfo, nullptr, &columns) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(columns), values, nulls));
}
}
