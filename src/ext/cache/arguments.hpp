/*-------------------------------------------------------------------------
 *
 * arguments.hpp
 *		Arguments of the cache's functions, checked and as plain data.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string_view>

#include "pg/server.hpp"

namespace cache_ext::cache {

/* The longest life of an entry: 10,000 years. */
constexpr int64 kMaxTtlMs = INT64CONST(10000) * 366 * 24 * 3600 * 1000;

/* Versions, leases, the floor and rate limits lie under these names: a value there would break
 * them. */
bool is_reserved(std::string_view name) noexcept;

/* All of these may raise: call them with no C++ object alive that has a destructor. */

/* 22004: for the arguments of what writes. */
void refuse_null(const char *what);

/* 22023 for a name that no entry may have: empty, too long, or reserved for the cache's own data.
 */
void check_key(std::string_view key);
std::string_view key_argument(FunctionCallInfo fcinfo, int number);

/* Milliseconds, 0 for NULL; months count 30 days, as elsewhere in PostgreSQL. */
int64 ttl_argument(FunctionCallInfo fcinfo, int number, const char *of = "cache entry");

/* Is it the bare one? */
bool dialect_argument(FunctionCallInfo fcinfo, int number);

struct Names
{
	std::string_view *names;
	int count;
};

/* The elements of a text array in the current context; a NULL array is an empty one. */
Names names_argument(FunctionCallInfo fcinfo, int number, const char *what);
Names keys_argument(FunctionCallInfo fcinfo, int number);
Names optional_keys_argument(FunctionCallInfo fcinfo, int number); /* NULLs left out */
Names tags_argument(FunctionCallInfo fcinfo, int number);

bool is_too_large(size_t size);

} /* namespace cache_ext::cache */
