/*-------------------------------------------------------------------------
 *
 * loaders.hpp
 *		Loaders: queries that answer whatever keys match a pattern.
 *
 * A loader runs with the rights of the role that defined it and under the
 * settings of then, so that its answers are right for everybody who may read.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/cache/key_pattern.hpp"
#include "pg/server.hpp"

namespace cache_ext::cache {

struct Loader
{
	std::string pattern;
	KeyPattern key;
	std::string query;
	std::vector<Oid> types; /* of the placeholders, in their order */
	Oid owner = InvalidOid;
	std::vector<std::string> setting_names;
	std::vector<std::string> setting_values;
	std::vector<KeyPattern> tags;
	int64 ttl_ms = 0;          /* 0: the default */
	int64 negative_ttl_ms = 0; /* for an answer of no rows; 0: as any other */
	int64 stale_ms = 0;
	int64 soft_timeout_ms = 0; /* for Redis; 0: cache_ext.command_timeout */
	double eager = 0;          /* the share of its life after which an entry is renewed; 0: never */
	std::optional<std::string> warm; /* a query whose rows are placeholders' values */
	bool plain = false;
};

/* A loader and the values of its placeholders in a key; owns nothing of the key. */
struct LoaderMatch
{
	std::shared_ptr<const Loader> loader; /* null: none matches */
	std::vector<std::string_view> values;
};

/* The loader of the key: of those that match the one with the most literal characters. */
LoaderMatch find_loader(std::string_view key);

/* Does any of them renew entries before their end?  Costs nothing when none does. */
bool have_eager_loaders();

/* All of them, as this database has them now. */
const std::vector<std::shared_ptr<const Loader>> &all_loaders();

/*
 * Within its life the session is taken for the loader's role under its settings
 * where the audience of an entry is concerned (audience.hpp).
 */
class ActingLoader
{
  public:
	explicit ActingLoader(const Loader *loader) noexcept;
	~ActingLoader();
	ActingLoader(const ActingLoader &) = delete;
	ActingLoader &operator=(const ActingLoader &) = delete;

	static const Loader *current() noexcept;

  private:
	const Loader *before_;
};

} /* namespace cache_ext::cache */
