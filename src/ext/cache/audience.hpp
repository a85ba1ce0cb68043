/*-------------------------------------------------------------------------
 *
 * audience.hpp
 *		For whom a query's result is the right answer.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "core/base/digest.hpp"
#include "pg/server.hpp"

namespace cache_ext::cache {

/*
 * The current role together with the settings that change what a query's text
 * means or how its values look: row_security, search_path, time zone and the
 * like.  by_settings adds the session's user and every custom setting
 * (current_setting('app.tenant')): dearer, so only for queries that could look.
 */
Digest current_audience(bool by_settings);

} /* namespace cache_ext::cache */
