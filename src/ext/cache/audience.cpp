/*-------------------------------------------------------------------------
 *
 * audience.cpp
 *		For whom a query's result is the right answer; see audience.hpp.
 *
 * An entry made by an inline query is believed only by a session with the same
 * fingerprint; everybody else misses.  The cheap part is computed on each hit:
 * it reads the server's variables, not settings by name.
 *
 *-------------------------------------------------------------------------
 */
#include <cstring>
#include <string_view>

#include "core/cache/envelope.hpp"
#include "ext/cache/audience.hpp"
#include "ext/cache/loaders.hpp"
#include "pg/guard.hpp"

extern "C" {
#include "catalog/namespace.h"
#include "parser/parse_expr.h"
#include "parser/parser.h"
#include "pgtime.h"
#include "tsearch/ts_cache.h"
#include "utils/array.h"
#include "utils/bytea.h"
#include "utils/float.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/rls.h"
#include "utils/xml.h"
}

namespace cache_ext::cache {

/* With its length, so that two neighbours cannot be cut differently. */
static void
add_text(Digester *digester, const char *text)
{
	std::string_view view = text != nullptr ? text : "";

	digester->add(uint64_t{view.size()}).add(view);
}

static void
add_number(Digester *digester, int number)
{
	digester->add(static_cast<uint64_t>(static_cast<int64_t>(number)));
}

/*
 * All settings but ours that this session may have otherwise than others:
 * what was set for it or by it, and extensions' and applications' own.  Those
 * that nobody has set do not count: a session that has not yet loaded the
 * extension does not even know them.
 */
static void
add_custom_settings(Digester *digester)
{
#if PG_VERSION_NUM >= 160000
	int count = 0;
	struct config_generic **settings = get_guc_variables(&count);
#else
	int count = GetNumConfigOptions();
	struct config_generic **settings = get_guc_variables();
#endif

	for (int i = 0; i < count; ++i)
	{
		const char *name = settings[i]->name;

		GucSource shared = strchr(name, '.') != nullptr ? PGC_S_DYNAMIC_DEFAULT : PGC_S_GLOBAL;

		if (settings[i]->source <= shared || strncmp(name, "cache_ext.", 10) == 0 ||
		    strncmp(name, "transaction_", 12) == 0)
			continue;
		add_text(digester, name);
		add_text(digester, GetConfigOption(name, true, false));
	}
}

/* Whose settings a loader's answer could depend on, beside its own. */
static Digest
audience_of_loader(const Loader &loader)
{
	Digester digester;

	add_text(&digester, "loader");
	add_number(&digester, static_cast<int>(loader.owner));
	for (size_t i = 0; i < loader.setting_names.size(); ++i)
	{
		add_text(&digester, loader.setting_names[i].c_str());
		add_text(&digester, loader.setting_values[i].c_str());
	}
	add_number(&digester, static_cast<int>(GetSessionUserId()));
	pg::call([&] { add_custom_settings(&digester); });
	return digester.finish();
}

Digest
current_audience(bool by_settings)
{
	Digester digester;

	if (const Loader *loader = ActingLoader::current())
		return by_settings ? audience_of_loader(*loader) : kEverybody;
	add_number(&digester, static_cast<int>(GetUserId()));
	add_number(&digester, row_security);
	add_text(&digester, namespace_search_path);
	add_text(&digester, pg_get_timezone_name(session_timezone));
	add_number(&digester, DateStyle);
	add_number(&digester, DateOrder);
	add_number(&digester, IntervalStyle);
	add_number(&digester, extra_float_digits);
	add_number(&digester, bytea_output);
	add_number(&digester, xmlbinary);
	add_number(&digester, xmloption);
	add_number(&digester, Array_nulls);
	add_number(&digester, Transform_null_equals);
	add_number(&digester, standard_conforming_strings);
	/* By name: pg_locale.h wants ICU's headers, which building an extension need not. */
	for (const char *name : {"lc_monetary", "lc_numeric", "lc_time"})
		add_text(&digester, pg::call([&] { return GetConfigOption(name, false, false); }));
	add_text(&digester, TSCurrentConfig);
	if (by_settings)
	{
		add_number(&digester, static_cast<int>(GetSessionUserId()));
		pg::call([&] { add_custom_settings(&digester); });
	}
	return digester.finish();
}

} /* namespace cache_ext::cache */
