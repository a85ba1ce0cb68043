/*-------------------------------------------------------------------------
 *
 * settings.cpp
 *		Every setting of the extension, grouped by feature.
 *
 *-------------------------------------------------------------------------
 */
#include <climits>

#include "pg/server.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "utils/guc.h"
}

namespace cache_ext::pg {

constexpr int kDefaultFoldIntervalMs = 100;

int fold_interval_ms = kDefaultFoldIntervalMs;

void
define_settings()
{
	DefineCustomIntVariable("cache_ext.fold_interval",
							"Time between two folds of partial rows while tables are written.",
							nullptr, &fold_interval_ms, kDefaultFoldIntervalMs, 10, 60 * 1000,
							PGC_SUSET, GUC_UNIT_MS, nullptr, nullptr, nullptr);

	MarkGUCPrefixReserved("cache_ext");
}

} /* namespace cache_ext::pg */
