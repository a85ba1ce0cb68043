/*-------------------------------------------------------------------------
 *
 * arguments.cpp
 *		Arguments of the cache's functions, checked; see arguments.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/cache/arguments.hpp"

#include "core/cache/envelope.hpp"
#include "core/base/digest.hpp"
#include "core/policy/rate_limit.hpp"
#include "ext/invalidation/items.hpp"
#include "pg/memory.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/timestamp.h"
}

namespace cache_ext::cache {

void
refuse_null(const char *what)
{
	ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", what)));
}

/* "limit:<algorithm>:<microseconds>:<key>" */
static bool
is_limit(std::string_view name) noexcept
{
	constexpr std::string_view kStart = "limit:";
	size_t colon = name.find(':', kStart.size());

	if (name.substr(0, kStart.size()) != kStart || colon == std::string_view::npos ||
	    !policy::algorithm_of(name.substr(kStart.size(), colon - kStart.size())))
		return false;

	size_t end = name.find_first_not_of("0123456789", colon + 1);

	return end != std::string_view::npos && end > colon + 1 && name[end] == ':';
}

bool
is_reserved(std::string_view name) noexcept
{
	if (is_limit(name))
		return true;
	if (name.size() > 2 && name.substr(0, 2) == "v:")
		return name.find_first_not_of("0123456789", 2) == std::string_view::npos;
	if (name.size() == 2 + 2 * Digest::kSize && name.substr(0, 2) == "l:")
		return name.find_first_not_of("0123456789abcdef", 2) == std::string_view::npos;
	return name == "floor";
}

void
check_key(std::string_view key)
{
	invalidation::check_name(key, "cache key");
	invalidation::check_allowed(key, "cache key");
	if (is_reserved(key))
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		         errmsg("cache key \"%.*s\" is reserved", static_cast<int>(key.size()), key.data()),
		         errdetail("The cache keeps its own data under this name.")));
}

std::string_view
key_argument(FunctionCallInfo fcinfo, int number)
{
	std::string_view key = pg::view(PG_GETARG_TEXT_PP(number));

	check_key(key);
	return key;
}

int64
ttl_argument(FunctionCallInfo fcinfo, int number, const char *of)
{
	if (PG_ARGISNULL(number))
		return 0;

	const Interval *ttl = PG_GETARG_INTERVAL_P(number);
	double days = static_cast<double>(ttl->month) * DAYS_PER_MONTH + ttl->day;
	double ms = days * (SECS_PER_DAY * 1000.0) + static_cast<double>(ttl->time) / 1000.0;

	if (!(ms > 0.0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("ttl of a %s must be greater than zero", of)));
	if (ms > static_cast<double>(kMaxTtlMs))
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("ttl of a %s is too long", of)));
	return ms < 1.0 ? 1 : static_cast<int64>(ms);
}

bool
dialect_argument(FunctionCallInfo fcinfo, int number)
{
	if (PG_ARGISNULL(number))
		return false;

	std::string_view dialect = pg::view(PG_GETARG_TEXT_PP(number));

	if (dialect != "plain")
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("unknown dialect \"%.*s\" of a cache entry",
		                       static_cast<int>(dialect.size()), dialect.data()),
		                errhint("Give 'plain' for a bare value, or nothing.")));
	return true;
}

bool
is_too_large(size_t size)
{
	return size > static_cast<size_t>(pg::max_value_size_kb) * 1024;
}

Names
names_argument(FunctionCallInfo fcinfo, int number, const char *what)
{
	Datum *elements;
	bool *nulls;
	Names result = {nullptr, 0};

	if (PG_ARGISNULL(number))
		return result;

	ArrayType *array = PG_GETARG_ARRAYTYPE_P(number);

	if (ARR_NDIM(array) == 0)
		return result; /* the rule where tags are meant: on the path of every hit */
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &result.count);
	result.names =
	    static_cast<std::string_view *>(palloc(sizeof(std::string_view) * Max(result.count, 1)));
	for (int i = 0; i < result.count; ++i)
	{
		if (nulls[i])
			refuse_null(what);
		result.names[i] = pg::view(DatumGetTextPP(elements[i]));
	}
	return result;
}

Names
keys_argument(FunctionCallInfo fcinfo, int number)
{
	Names keys = names_argument(fcinfo, number, "cache key");

	for (int i = 0; i < keys.count; ++i)
		check_key(keys.names[i]);
	return keys;
}

Names
optional_keys_argument(FunctionCallInfo fcinfo, int number)
{
	Datum *elements;
	bool *nulls;
	int count;
	Names keys = {nullptr, 0};

	if (PG_ARGISNULL(number))
		return keys;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(number), TEXTOID, -1, false, TYPALIGN_INT, &elements,
	                  &nulls, &count);
	keys.names = static_cast<std::string_view *>(palloc(sizeof(std::string_view) * Max(count, 1)));
	for (int i = 0; i < count; ++i)
		if (!nulls[i])
		{
			keys.names[keys.count] = pg::view(DatumGetTextPP(elements[i]));
			check_key(keys.names[keys.count++]);
		}
	return keys;
}

Names
tags_argument(FunctionCallInfo fcinfo, int number)
{
	Names tags = names_argument(fcinfo, number, "tag");

	if (static_cast<size_t>(tags.count) > kMaxTags)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("too many tags for one cache entry"),
		                errdetail("There are %d, at most %zu are allowed.", tags.count, kMaxTags)));
	for (int i = 0; i < tags.count; ++i)
	{
		invalidation::check_name(tags.names[i], "tag");
		invalidation::check_allowed(tags.names[i], "tag");
	}
	return tags;
}

} /* namespace cache_ext::cache */
