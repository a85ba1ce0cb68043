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
 * Of an inline query's answer: the current role together with the settings that
 * change what a query's text means or how its values look: row_security,
 * search_path, time zone and the like.  by_settings adds the session's user and
 * every setting that the session may have for itself (current_setting('app.tenant')):
 * dearer, so only for queries that could look.
 *
 * Of a loader's answer, while one is acting (loaders.hpp): everybody, or with
 * by_settings the sessions of this user with these settings.
 */
Digest current_audience(bool by_settings);

} /* namespace cache_ext::cache */
