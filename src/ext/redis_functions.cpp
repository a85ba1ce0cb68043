/*-------------------------------------------------------------------------
 *
 * redis_functions.cpp
 *		What SQL sees of the link: the rows of redis_status, and cache_ping.
 *
 * The status asks the server itself, over the session's own connection, and
 * adds what all processes of this server have met there.  While the breaker is
 * open nobody is asked, so watching an outage costs nothing.
 *
 *-------------------------------------------------------------------------
 */
#include <chrono>
#include <optional>
#include <string>

#include "core/redis/server_report.hpp"
#include "pg/guard.hpp"
#include "pg/redis_endpoint.hpp"
#include "pg/redis_health.hpp"
#include "pg/redis_link.hpp"

extern "C" {
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(cache_ext_redis_status);
PG_FUNCTION_INFO_V1(cache_ext_ping);
}

namespace cache_ext {

namespace {

using Clock = std::chrono::steady_clock;

/* What the server says about itself, and how long that took. */
struct Look
{
	redis::ServerReport report;
	int64 took_us = 0;
};

int64
microseconds_since(Clock::time_point began)
{
	return std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - began).count();
}

/* The first use of a session connects and logs in, which is no part of a round trip. */
std::optional<Look>
look_at(const pg::Endpoint &endpoint)
{
	try
	{
		redis::Request request;
		Look look;

		request.add({"INFO"});
		(void) pg::redis_server();

		Clock::time_point began = Clock::now();
		std::vector<redis::Reply> replies = pg::redis_exchange(request);

		look.took_us = microseconds_since(began);
		if (!replies[0].is_string())
			return std::nullopt;
		look.report = redis::read_server_report(replies[0].text, endpoint.address.database);
		return look;
	}
	catch (const Error &)
	{
		return std::nullopt; /* the health knows why */
	}
}

const char *
state_of(const pg::HealthStatus &health, bool answers)
{
	if (answers)
		return "ready";
	if (!health.known || health.breaker == Breaker::State::kHalfOpen)
		return "connecting";
	return health.answers ? "ready" : "failed";
}

const char *
name_of(Breaker::State breaker)
{
	switch (breaker)
	{
	case Breaker::State::kClosed:
		return "closed";
	case Breaker::State::kOpen:
		return "open";
	case Breaker::State::kHalfOpen:
		break;
	}
	return "half-open";
}

/* A row of the view, as plain data; what is unknown is null. */
class Row
{
  public:
	void add_text(const std::string &text)
	{
		std::string clean = redis::readable(text);

		if (clean.empty())
			add_null();
		else
			add(pg::call([&] { return CStringGetTextDatum(clean.c_str()); }));
	}
	void add_number(const std::optional<int64_t> &number)
	{
		if (number)
			add(pg::call([&] { return Int64GetDatum(*number); }));
		else
			add_null();
	}
	void add_null() { nulls_[count_++] = true; }
	void add(Datum value) { values_[count_++] = value; }

	/* The rest stays null. */
	void put(ReturnSetInfo *result)
	{
		while (count_ < kColumns)
			add_null();
		pg::call(
		    [&] { tuplestore_putvalues(result->setResult, result->setDesc, values_, nulls_); });
	}

  private:
	static constexpr int kColumns = 16;

	Datum values_[kColumns] = {};
	bool nulls_[kColumns] = {};
	int count_ = 0;
};

void
put_endpoint(const pg::Endpoint &endpoint, ReturnSetInfo *result)
{
	std::string address = endpoint.address.url();
	std::optional<Look> look = look_at(endpoint);
	pg::HealthStatus health = pg::redis_health_status();
	redis::ServerReport report = look ? look->report : redis::ServerReport();
	Row row;

	row.add_text(address);
	row.add_text(report.role);
	row.add_text(state_of(health, look.has_value()));
	row.add_text(name_of(health.breaker));
	if (health.known)
		row.add(TimestampTzGetDatum(health.since));
	else
		row.add_null();
	row.add_text(report.version);
	if (report.clients)
		row.add(Int32GetDatum(static_cast<int32>(*report.clients)));
	else
		row.add_null();
	row.add_number(report.memory_bytes);
	row.add_number(report.keys);
	row.add_number(report.keyspace_hits);
	row.add_number(report.keyspace_misses);
	if (look)
		row.add(Float8GetDatum(static_cast<double>(look->took_us) / 1000.0));
	else
		row.add_null();
	row.add_number(health.reconnects);
	row.add_text(health.last_error);
	row.add_text(report.eviction);
	if (report.appends)
		row.add(BoolGetDatum(*report.appends));
	row.put(result);
}

void
put_off(ReturnSetInfo *result)
{
	Row row;

	row.add_null();
	row.add_null();
	row.add_text("off");
	row.put(result);
}

int64
ping()
{
	pg::ExchangeOptions options;
	redis::Request request;

	options.impatient = true;
	request.add({"PING"});
	(void) pg::redis_server(options);

	Clock::time_point began = Clock::now();
	std::vector<redis::Reply> replies = pg::redis_exchange(request, options);
	int64 took_us = microseconds_since(began);

	if (replies[0].is_error())
		throw Error(kConnectionFailure,
		            "Redis server \"" + pg::redis_name() + "\" refused to answer",
		            "It answers: " + redis::readable(replies[0].text));
	if (replies[0].text != "PONG")
		throw Error(kProtocolViolation,
		            "unexpected answer from Redis server \"" + pg::redis_name() + "\"");
	return took_us;
}

} /* namespace */

} /* namespace cache_ext */

extern "C" {

Datum
cache_ext_redis_status(PG_FUNCTION_ARGS)
{
	auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);

	InitMaterializedSRF(fcinfo, 0);
	cache_ext::pg::guard([&] {
		/* Looking may let an interrupt in, and a reload with it. */
		cache_ext::pg::Endpoint endpoint = cache_ext::pg::redis_endpoint();

		if (endpoint.configured)
			cache_ext::put_endpoint(endpoint, result);
		else
			cache_ext::put_off(result);
	});
	return (Datum) 0;
}

Datum
cache_ext_ping(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	auto *took = static_cast<Interval *>(palloc0(sizeof(Interval)));

	cache_ext::pg::guard([&] { took->time = cache_ext::ping(); });
	PG_RETURN_INTERVAL_P(took);
}
}
