/*-------------------------------------------------------------------------
 *
 * warm_functions.cpp
 *		cache_warm(), and what cache_doctor() asks about loaders.
 *
 *-------------------------------------------------------------------------
 */
#include <string>
#include <vector>

#include "core/invalidation/glob.hpp"
#include "ext/cache/counters.hpp"
#include "ext/cache/load.hpp"
#include "ext/cache/loaders.hpp"
#include "ext/cache/query.hpp"
#include "ext/cache/read.hpp"
#include "ext/cache/source.hpp"
#include "ext/cache/warm.hpp"
#include "ext/invalidation/journal.hpp"
#include "pg/guard.hpp"
#include "pg/memory.hpp"

extern "C" {
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(cache_ext_warm);
PG_FUNCTION_INFO_V1(cache_ext_loader_relations);
}

namespace cache_ext::cache {

namespace {

struct Warmed
{
	std::string key;
	bool ok;
	int64 us;
	std::string error;
};

void
put_warmed(ReturnSetInfo *result, const Warmed &warmed)
{
	const char *key = warmed.key.c_str();
	const char *error = warmed.ok ? nullptr : warmed.error.c_str();
	bool ok = warmed.ok;
	int64 us = warmed.us;

	pg::call([&] {
		auto *elapsed = static_cast<Interval *>(palloc0(sizeof(Interval)));
		Datum values[] = {CStringGetTextDatum(key), BoolGetDatum(ok), IntervalPGetDatum(elapsed),
		                  error != nullptr ? CStringGetTextDatum(error) : Datum(0)};
		bool nulls[] = {false, false, false, error == nullptr};

		elapsed->time = us;
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
		CHECK_FOR_INTERRUPTS();
	});
}

/* Runs fn, and returns the message of what it raised. */
template <typename Fn>
Warmed
warmed_by(const std::string &key, Fn &&fn)
{
	uint64 begun = clock_ns();
	std::string error = error_of(fn);

	return {key, error.empty(), static_cast<int64>((clock_ns() - begun) / 1000), error};
}

void
warm_loader(ReturnSetInfo *result, const std::shared_ptr<const Loader> &loader,
            const std::string *pattern)
{
	std::vector<std::string> keys;
	Warmed named = warmed_by(loader->pattern, [&] { keys = keys_to_warm(loader); });

	if (!named.ok)
		put_warmed(result, named);
	for (const std::string &key : keys)
	{
		LoaderMatch match = find_loader(key);

		if (match.loader != loader ||
		    (pattern != nullptr && !invalidation::glob_match(*pattern, key)))
			continue;
		put_warmed(result, warmed_by(key, [&] { load_key(key, match); }));
	}
}

} /* namespace */

} /* namespace cache_ext::cache */

using namespace cache_ext;

extern "C" {

/* cache_warm(pattern): a row a key */
Datum
cache_ext_warm(PG_FUNCTION_ARGS)
{
	auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
	bool all = PG_ARGISNULL(0);
	std::string_view pattern;

	PreventCommandDuringRecovery("cache_warm()");
	InitMaterializedSRF(fcinfo, 0);
	if (!all)
	{
		pattern = pg::view(PG_GETARG_TEXT_PP(0));
		invalidation::check_pattern(pattern);
	}
	if (!cache::may_share())
		ereport(ERROR,
		        (errcode(ERRCODE_ACTIVE_SQL_TRANSACTION), errmsg("cache_warm cannot run here"),
		         errdetail("The transaction has changed something or keeps to an old snapshot, "
		                   "or cache_ext.enabled is off: nothing would be stored.")));
	pg::guard([&] {
		std::string copy(pattern);
		auto loaders = cache::all_loaders();

		for (const auto &loader : loaders)
			cache::warm_loader(result, loader, all ? nullptr : &copy);
	});
	return Datum(0);
}

/* Which relations each loader's query reads, or why it cannot be told. */
Datum
cache_ext_loader_relations(PG_FUNCTION_ARGS)
{
	auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);

	InitMaterializedSRF(fcinfo, 0);
	pg::guard([&] {
		auto loaders = cache::all_loaders();

		for (const auto &loader : loaders)
		{
			List *relations = NIL;
			std::string error = cache::error_of([&] {
				cache::Source source(
				    {loader, std::vector<std::string_view>(loader->key.names().size())});

				pg::call([&] { relations = cache::relations_of_query(source.call()); });
			});

			pg::call([&] {
				Datum values[3] = {CStringGetTextDatum(loader->pattern.c_str()), 0,
				                   CStringGetTextDatum(error.c_str())};
				bool nulls[3] = {false, true, error.empty()};

				if (!nulls[2])
					tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
				nulls[1] = false;
				for (int i = 0; i < list_length(relations); ++i)
				{
					values[1] = ObjectIdGetDatum(list_nth_oid(relations, i));
					tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
				}
			});
		}
	});
	return Datum(0);
}
}
