/*-------------------------------------------------------------------------
 *
 * settings.hpp
 *		The settings (cache_ext.*) as the code reads them.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

namespace cache_ext::pg {

/* Milliseconds between two folds while there is something to fold. */
extern int fold_interval_ms;

void define_settings();

} /* namespace cache_ext::pg */
