/*-------------------------------------------------------------------------
 *
 * source.hpp
 *		Where a value comes from when no tier has it: the query of the call, or
 *		the loader of the key.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "ext/cache/loaders.hpp"
#include "ext/cache/query.hpp"
#include "ext/cache/read.hpp"

namespace cache_ext::cache {

class Source
{
  public:
	/* Both keep views into what they are made from, and must not be moved. */
	explicit Source(const Ask &ask);
	explicit Source(const LoaderMatch &match);
	Source(const Source &) = delete;
	Source &operator=(const Source &) = delete;

	const QueryCall &call() const { return call_; }
	const Loader *loader() const { return loader_.get(); }
	const std::vector<std::string_view> &tags() const { return tags_; }

	bool plain = false;
	int64 ttl_ms = 0;          /* 0: the default */
	int64 negative_ttl_ms = 0; /* 0: as ttl_ms */
	int64 stale_ms = 0;
	double eager = 0;

	/* What tells this load from others: the key as Redis knows it, the query and whose it is. */
	uint64 number(std::string_view key) const;

  private:
	std::shared_ptr<const Loader> loader_;
	QueryCall call_ = {};
	RunAs run_as_ = {};
	std::vector<std::string> texts_;
	std::vector<const char *> arguments_;
	std::vector<const char *> setting_names_;
	std::vector<const char *> setting_values_;
	std::vector<std::string> tag_texts_;
	std::vector<std::string_view> tags_;
};

} /* namespace cache_ext::cache */
