/*-------------------------------------------------------------------------
 *
 * dialect.hpp
 *		How cache libraries name in Redis what an application calls by its key.
 *
 *	dialect		options (with what they are by default)		key in Redis
 *	plain		prefix ('')									prefix key
 *	ioredis		key_prefix ('')								key_prefix key
 *	django		key_prefix (''), version (1)				key_prefix:version:key
 *	bentocache	prefix (bentocache), namespace ('')			prefix:namespace:key
 *	fusioncache	instance (''), version (v2), key_prefix ('')	instance version: key_prefix key
 *	laravel		connection_prefix (''), prefix (''), version (11)	connection_prefix prefix key
 *	keyv		namespace (keyv), key_prefix (namespace:)	namespace:: key_prefix key
 *	rails		namespace ('')								namespace:key
 *	spring		prefix (''), cache							prefix cache::key
 *	connect		prefix (sess:)								prefix key
 *
 * django is Django's own Redis backend and django-redis alike.  Laravel put a colon
 * behind the prefix of its cache up to version 10; its connection_prefix is the one of
 * database.redis.options.  keyv is cache-manager, too.  So every name is
 * what the application says behind a text that is fixed for a target.  Sets
 * tag:<name> that hold keys are a habit of applications which use a client
 * directly, so plain and ioredis have tags and the others have not.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cache_ext::invalidation {

struct Dialect
{
	std::string prefix; /* of every key */
	bool tags;          /* may watches name tags? */
};

using DialectOptions = std::vector<std::pair<std::string, std::string>>;

/* Throws Error(22023) for a dialect or an option that is not known. */
Dialect read_dialect(std::string_view name, const DialectOptions &options);

/*
 * Between the prefix of a target and the name in items of kind tag set.  A
 * prefix may not contain it.
 */
constexpr char kPrefixEnd = '\x1f';

/* The templates that a watch on a target means by its own. */
std::string key_of_target(std::string_view prefix, std::string_view key);
std::string pattern_of_target(std::string_view prefix, std::string_view pattern);
std::string tag_of_target(std::string_view prefix, std::string_view tag);

} /* namespace cache_ext::invalidation */
