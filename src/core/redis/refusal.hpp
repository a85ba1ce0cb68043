/*-------------------------------------------------------------------------
 *
 * refusal.hpp
 *		What an error that Redis answers says about the server.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string_view>

#include "core/redis/reply.hpp"

namespace cache_ext::redis {

enum class Refusal
{
	kData,       /* the key holds something else: nothing is wrong with server or connection */
	kOther,      /* nothing that is known to mean more */
	kPermission, /* this user may not do it, or not with this key */
	kFull,       /* reads are served, writes are not */
	kNotServing, /* it is no use to anybody now, or not the server we look for */
	kLogin       /* it does not let us in */
};

/* By how an error's text begins. */
Refusal classify_refusal(std::string_view text) noexcept;

} /* namespace cache_ext::redis */
