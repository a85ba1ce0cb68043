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

/* As in utils/pg_locale.h, which wants ICU's headers, and building an extension need not. */
extern PGDLLIMPORT char *locale_monetary;
extern PGDLLIMPORT char *locale_numeric;
extern PGDLLIMPORT char *locale_time;
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

/* What every result may depend on, told to something that has number() and text(). */
template <typename Sink>
static void
collect(Sink *to)
{
	to->number(static_cast<int>(GetUserId()));
	to->number(row_security);
	to->text(namespace_search_path);
	to->text(pg_get_timezone_name(session_timezone));
	to->number(DateStyle);
	to->number(DateOrder);
	to->number(IntervalStyle);
	to->number(extra_float_digits);
	to->number(bytea_output);
	to->number(xmlbinary);
	to->number(xmloption);
	to->number(Array_nulls);
	to->number(Transform_null_equals);
	to->number(standard_conforming_strings);
	to->text(locale_monetary);
	to->text(locale_numeric);
	to->text(locale_time);
	to->text(TSCurrentConfig);
}

namespace {

/* Writes it down. */
struct Bytes
{
	std::string all;

	void number(int value) { all.append(reinterpret_cast<const char *>(&value), sizeof(value)); }

	void text(const char *value)
	{
		std::string_view view = value != nullptr ? value : "";

		number(static_cast<int>(view.size()));
		all.append(view);
	}
};

/* Is it what was written down? */
struct Comparison
{
	const char *at;
	const char *end;
	bool equal = true;

	void bytes(const void *with, size_t size)
	{
		equal = equal && static_cast<size_t>(end - at) >= size && memcmp(at, with, size) == 0;
		if (equal)
			at += size;
	}

	void number(int value) { bytes(&value, sizeof(value)); }

	void text(const char *value)
	{
		std::string_view view = value != nullptr ? value : "";

		number(static_cast<int>(view.size()));
		bytes(view.data(), view.size());
	}
};

} /* namespace */

/* On the path of every hit: comparing with what held the last time is cheaper than a digest. */
static Digest
digest_of_session()
{
	static std::string *last = nullptr;
	static Digest digest;

	if (last != nullptr)
	{
		Comparison comparison{last->data(), last->data() + last->size()};

		collect(&comparison);
		if (comparison.equal && comparison.at == comparison.end)
			return digest;
	}

	Bytes bytes;

	collect(&bytes);
	digest = Digester().add(bytes.all).finish();
	if (last == nullptr)
		last = new std::string();
	last->swap(bytes.all);
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
