/*-------------------------------------------------------------------------
 *
 * warm.cpp
 *		Loading entries before somebody asks for them; see warm.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/cache/warm.hpp"

#include <optional>

#include "core/base/error.hpp"
#include "ext/cache/arguments.hpp"
#include "ext/cache/conversation.hpp"
#include "ext/cache/load.hpp"
#include "ext/cache/memory.hpp"
#include "ext/cache/query.hpp"
#include "ext/cache/read.hpp"
#include "ext/cache/source.hpp"
#include "ext/cache/tier.hpp"
#include "pg/guard.hpp"
#include "pg/redis_link.hpp"

extern "C" {
#include "utils/jsonb.h"
#include "utils/snapmgr.h"
}

namespace cache_ext::cache {

constexpr uint64 kMostKeys = 100000; /* of one loader: more than memory should hold at once */

bool
can_warm()
{
	return may_share() && (memory_available() || pg::redis_configured());
}

/* The rows of an answer in texts, the names left out: lists of C strings, NULLs as they are. */
static List *
rows_of(const char *json)
{
	Jsonb *rows = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(json)));
	List *lists = NIL;

	for (uint32 i = 1; i < JsonContainerSize(&rows->root); ++i)
	{
		JsonbContainer *row = getIthJsonbValueFromContainer(&rows->root, i)->val.binary.data;
		List *texts = NIL;

		for (uint32 column = 0; column < JsonContainerSize(row); ++column)
		{
			JsonbValue *value = getIthJsonbValueFromContainer(row, column);

			texts = lappend(texts, value->type == jbvNull
			                           ? nullptr
			                           : pnstrdup(value->val.string.val, value->val.string.len));
		}
		lists = lappend(lists, texts);
	}
	return lists;
}

std::vector<std::string>
keys_to_warm(const std::shared_ptr<const Loader> &loader)
{
	std::vector<std::string> keys;

	if (loader->key.names().empty())
		return {loader->key.fill({})};
	if (!loader->warm)
		return {};

	Source source({loader, {}});
	QueryCall call = source.call();
	QueryAnswer answer;
	List *rows = nullptr;

	call.text = loader->warm->c_str();
	call.argument_count = 0;
	call.types = nullptr;
	call.allow_volatile = true;
	call.as_text_rows = true;
	call.most_rows = kMostKeys;
	pg::call([&] {
		PushActiveSnapshot(GetLatestSnapshot());
		run_query(call, &answer);
		PopActiveSnapshot();
		rows = rows_of(answer.json.data);
	});
	for (int i = 0; i < list_length(rows); ++i)
	{
		auto *texts = static_cast<List *>(list_nth(rows, i));
		std::vector<std::string_view> values;

		for (int column = 0; column < list_length(texts); ++column)
			if (auto *text = static_cast<const char *>(list_nth(texts, column)))
				values.emplace_back(text);
		if (static_cast<size_t>(list_length(texts)) != loader->key.names().size())
			throw Error(kInvalidParameterValue,
			            "query that warms cache loader \"" + loader->pattern +
			                "\" must have a column for each of its placeholders");
		if (values.size() == loader->key.names().size())
			keys.push_back(loader->key.fill(values));
	}
	return keys;
}

void
load_key(std::string_view key, const LoaderMatch &match)
{
	Source source(match);

	pg::call([&] { check_key(key); });
	load_for_all({key, &source, true, pg::redis_configured(), {}, false, {}, {}});
}

/* Those that read this loader's answers find it in memory, or it comes there from Redis. */
static bool
is_in_tiers(std::string_view key, const LoaderMatch &match, bool *brought)
{
	ActingLoader acting(match.loader.get());

	if (memory_peek(key).fresh)
		return true;
	if (!pg::redis_configured())
		return false;

	std::optional<Source> source;

	if (match.loader != nullptr)
		source.emplace(match);

	PatienceForRedis patience(match.loader != nullptr ? match.loader->soft_timeout_ms : 0);

	*brought = look_up(key, source ? source->tags() : std::vector<std::string_view>()).hit();
	return *brought;
}

bool
bring_to_memory(std::string_view key)
{
	LoaderMatch match = find_loader(key);
	bool brought = false;

	if (is_in_tiers(key, match, &brought) || match.loader == nullptr)
		return brought;
	load_key(key, match);
	return true;
}

} /* namespace cache_ext::cache */
