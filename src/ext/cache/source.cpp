/*-------------------------------------------------------------------------
 *
 * source.cpp
 *		Where a value comes from when no tier has it; see source.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/cache/source.hpp"

#include "core/base/error.hpp"
#include "ext/cache/cache.hpp"
#include "pg/guard.hpp"

extern "C" {
#include "catalog/pg_authid.h"
#include "utils/syscache.h"
}

namespace cache_ext::cache {

Source::Source(const Ask &ask)
    : plain(ask.plain), ttl_ms(ask.ttl_ms), tags_(ask.tags.names, ask.tags.names + ask.tags.count)
{
	call_.text = ask.query;
	call_.argument_count = ask.argument_count;
	call_.arguments = ask.arguments;
	call_.allow_volatile = ask.ttl_ms > 0;
	call_.as_text_rows = ask.as_text_rows;
}

/* A role that is gone has no rights; without the check it would act under a number that may return.
 */
static void
check_owner(const Loader &loader)
{
	Oid owner = loader.owner;

	if (!pg::call([&] { return SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(owner)); }))
		throw Error({"42704"},
		            "the role that defined cache loader \"" + loader.pattern + "\" does not exist",
		            {}, "Define the loader again.");
}

Source::Source(const LoaderMatch &match)
    : plain(match.loader->plain), ttl_ms(match.loader->ttl_ms),
      negative_ttl_ms(match.loader->negative_ttl_ms), stale_ms(match.loader->stale_ms),
      eager(match.loader->eager), loader_(match.loader)
{
	check_owner(*loader_);
	for (std::string_view value : match.values)
		texts_.emplace_back(value);
	for (const std::string &text : texts_)
		arguments_.push_back(text.c_str());
	for (size_t i = 0; i < loader_->setting_names.size(); ++i)
	{
		setting_names_.push_back(loader_->setting_names[i].c_str());
		setting_values_.push_back(loader_->setting_values[i].c_str());
	}
	run_as_ = {loader_->owner, static_cast<int>(setting_names_.size()), setting_names_.data(),
	           setting_values_.data()};
	call_.text = loader_->query.c_str();
	call_.argument_count = static_cast<int>(arguments_.size());
	call_.arguments = arguments_.data();
	call_.types = loader_->types.data();
	call_.allow_volatile = loader_->ttl_ms > 0;
	call_.run_as = &run_as_;
	for (const KeyPattern &tag : loader_->tags)
		tag_texts_.push_back(tag.fill(match.values));
	tags_.assign(tag_texts_.begin(), tag_texts_.end());
}

uint64
Source::number(std::string_view key) const
{
	Digester digester;

	digester.add(full_key(key)).add(std::string_view("\0", 1)).add(std::string_view(call_.text));
	digester.add(uint64_t{loader_ != nullptr ? loader_->owner : GetUserId()});
	return digester.finish().low;
}

} /* namespace cache_ext::cache */
