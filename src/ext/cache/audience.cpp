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

/* What every result may depend on. */
struct Circumstances
{
	static constexpr int kNumbers = 12;
	static constexpr int kTexts = 6;

	int numbers[kNumbers];
	const char *texts[kTexts];
};

static Circumstances
circumstances() noexcept
{
	return {{static_cast<int>(GetUserId()), row_security, DateStyle, DateOrder, IntervalStyle,
	         extra_float_digits, bytea_output, xmlbinary, xmloption, Array_nulls,
	         Transform_null_equals, standard_conforming_strings},
	        {namespace_search_path, pg_get_timezone_name(session_timezone), locale_monetary,
	         locale_numeric, locale_time, TSCurrentConfig}};
}

namespace {

/* The digest of the circumstances, and what they were. */
class Judged
{
  public:
	bool holds(const Circumstances &now) const noexcept
	{
		if (memcmp(numbers_, now.numbers, sizeof(numbers_)) != 0)
			return false;
		for (int i = 0; i < Circumstances::kTexts; ++i)
			if (strcmp(texts_[i].c_str(), not_null(now.texts[i])) != 0)
				return false;
		return known_;
	}

	void judge(const Circumstances &now)
	{
		Digester digester;

		known_ = false;
		for (int i = 0; i < Circumstances::kNumbers; ++i)
			add_number(&digester, numbers_[i] = now.numbers[i]);
		for (int i = 0; i < Circumstances::kTexts; ++i)
		{
			texts_[i] = not_null(now.texts[i]);
			add_text(&digester, texts_[i].c_str());
		}
		digest_ = digester.finish();
		known_ = true;
	}

	Digest digest() const noexcept { return digest_; }

  private:
	static const char *not_null(const char *text) noexcept { return text != nullptr ? text : ""; }

	bool known_ = false;
	int numbers_[Circumstances::kNumbers] = {};
	std::string texts_[Circumstances::kTexts];
	Digest digest_ = {};
};

} /* namespace */

/* On the path of every hit: comparing with what held the last time is cheaper than a digest. */
static Digest
digest_of_session()
{
	static auto *last = new Judged();
	Circumstances now = circumstances();

	if (!last->holds(now))
		last->judge(now);
	return last->digest();
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
