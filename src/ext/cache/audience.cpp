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
#include <string>
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

/* What every result may depend on, as bytes. */
static void
collect(std::string *to)
{
	auto number = [to](int value) {
		auto wide = static_cast<int64>(value);

		to->append(reinterpret_cast<const char *>(&wide), sizeof(wide));
	};
	auto text = [&](const char *value) {
		std::string_view view = value != nullptr ? value : "";

		number(static_cast<int>(view.size()));
		to->append(view);
	};

	number(static_cast<int>(GetUserId()));
	number(row_security);
	text(namespace_search_path);
	text(pg_get_timezone_name(session_timezone));
	number(DateStyle);
	number(DateOrder);
	number(IntervalStyle);
	number(extra_float_digits);
	number(bytea_output);
	number(xmlbinary);
	number(xmloption);
	number(Array_nulls);
	number(Transform_null_equals);
	number(standard_conforming_strings);
	/* By name: pg_locale.h wants ICU's headers, which building an extension need not. */
	for (const char *name : {"lc_monetary", "lc_numeric", "lc_time"})
		text(pg::call([&] { return GetConfigOption(name, false, false); }));
	text(TSCurrentConfig);
}

/* On the path of every hit: comparing bytes with those of the last time is cheaper than a digest.
 */
static Digest
digest_of_session()
{
	static std::string *last = nullptr;
	static Digest digest;
	std::string bytes;

	bytes.reserve(256);
	collect(&bytes);
	if (last == nullptr || *last != bytes)
	{
		digest = Digester().add(bytes).finish();
		if (last == nullptr)
			last = new std::string();
		last->swap(bytes);
	}
	return digest;
}

Digest
current_audience(bool by_settings)
{
	if (const Loader *loader = ActingLoader::current())
		return by_settings ? audience_of_loader(*loader) : kEverybody;

	Digest session = digest_of_session();

	if (!by_settings)
		return session;

	Digester digester;

	digester.add(session.high).add(session.low);
	add_number(&digester, static_cast<int>(GetSessionUserId()));
	pg::call([&] { add_custom_settings(&digester); });
	return digester.finish();
}

} /* namespace cache_ext::cache */
