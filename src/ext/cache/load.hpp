/*-------------------------------------------------------------------------
 *
 * load.hpp
 *		Loading a value that no tier has: once for all who miss it, and not at any
 *		price.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <functional>
#include <optional>
#include <string_view>

#include "ext/cache/source.hpp"
#include "ext/cache/tier.hpp"
#include "pg/server.hpp"

namespace cache_ext::cache {

/* A miss, and what is known about it. */
struct Miss
{
	std::string_view key;
	const Source *source;
	bool share; /* may this transaction use and fill the tiers? */
	bool redis; /* and can Redis be used? */
	Seen seen;  /* what the look into Redis has shown */
	bool stale; /* an expired entry was there */

	/* Looks again, for what another session or server may have stored meanwhile. */
	std::function<text *(Miss *, bool redis_too)> look_again;

	/* The expired entry, if it has not been invalidated since. */
	std::function<text *()> look_for_stale;
};

/* The query's answer, or somebody else's to the same question; palloc'ed. */
text *load(Miss &&miss);

/* The same at once, whatever the tiers have; a null pointer when another session is loading. */
text *load_anew(Miss &&miss);

/* Stores the query's answer for everybody; nothing when another session is loading it. */
void load_for_all(Miss &&miss);

/* Run fn in a subtransaction and return the message of what it raised; empty: nothing. */
std::string error_of(const std::function<void()> &fn);

} /* namespace cache_ext::cache */
