/*-------------------------------------------------------------------------
 *
 * loaders.cpp
 *		Loaders as a backend knows them; see loaders.hpp.
 *
 * The only file that reads cache_ext_internal.loader.  The list is read once
 * and again after a relation-cache invalidation of the table, which whoever
 * changes it sends (loader_functions.cpp, and a trigger for those who write to it
 * by hand, as pg_restore does).
 *
 *-------------------------------------------------------------------------
 */
#include "ext/cache/loaders.hpp"

#include <algorithm>

#include "ext/invalidation/tables.hpp"
#include "pg/guard.hpp"
#include "pg/objects.hpp"

extern "C" {
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
}

namespace cache_ext::cache {

namespace {

namespace column {
enum
{
	pattern,
	query,
	types,
	owner,
	settings,
	ttl,
	tags,
	negative_ttl,
	stale_for,
	eager,
	soft_timeout,
	warm,
	dialect,
	count
};
}

using Loaders = std::vector<std::shared_ptr<const Loader>>;

Loaders *loaders = nullptr;
Oid table = InvalidOid;
bool valid = false;
bool eager = false;

void
forget_loaders(Datum, Oid relation)
{
	if (!OidIsValid(relation) || relation == table)
		valid = false;
}

/* A row in plain data. */
struct Row
{
	Datum values[column::count];
	bool nulls[column::count];
};

/* Copied into the current context. */
List *
read_rows()
{
	static bool registered = false;
	List *rows = NIL;

	if (!registered)
		CacheRegisterRelcacheCallback(forget_loaders, 0);
	registered = true;
	table = pg::internal_table("loader");
	/* Before the scan: what is sent while it goes on makes it invalid again. */
	valid = OidIsValid(table);
	if (!valid)
		return NIL;

	Relation heap = table_open(table, AccessShareLock);
	SysScanDesc scan = systable_beginscan(heap, InvalidOid, false, nullptr, 0, nullptr);

	for (HeapTuple tuple = systable_getnext(scan); tuple != nullptr; tuple = systable_getnext(scan))
	{
		auto *row = static_cast<Row *>(palloc0(sizeof(Row)));

		heap_deform_tuple(heap_copytuple(tuple), RelationGetDescr(heap), row->values, row->nulls);
		rows = lappend(rows, row);
	}
	systable_endscan(scan);
	table_close(heap, AccessShareLock);
	return rows;
}

std::string
text_at(const Row &row, int number)
{
	return pg::call([&] { return TextDatumGetCString(row.values[number]); });
}

std::vector<std::string>
texts_at(const Row &row, int number)
{
	std::vector<std::string> texts;
	Datum *elements = nullptr;
	int count = 0;

	pg::call([&] {
		deconstruct_array(DatumGetArrayTypeP(row.values[number]), TEXTOID, -1, false, TYPALIGN_INT,
		                  &elements, nullptr, &count);
	});
	for (int i = 0; i < count; ++i)
		texts.emplace_back(pg::call([&] { return TextDatumGetCString(elements[i]); }));
	return texts;
}

int64
milliseconds_at(const Row &row, int number)
{
	if (row.nulls[number])
		return 0;

	const Interval *interval = DatumGetIntervalP(row.values[number]);
	double days = static_cast<double>(interval->month) * DAYS_PER_MONTH + interval->day;

	return static_cast<int64>(days * (SECS_PER_DAY * 1000.0) +
	                          static_cast<double>(interval->time) / 1000.0);
}

std::shared_ptr<const Loader>
loader_of(const Row &row)
{
	auto loader = std::make_shared<Loader>();
	Datum *types = nullptr;
	int count = 0;

	loader->pattern = text_at(row, column::pattern);
	loader->key = KeyPattern::parse(loader->pattern);
	loader->query = text_at(row, column::query);
	pg::call([&] {
		deconstruct_array(DatumGetArrayTypeP(row.values[column::types]), REGTYPEOID, sizeof(Oid),
		                  true, TYPALIGN_INT, &types, nullptr, &count);
	});
	for (int i = 0; i < count; ++i)
		loader->types.push_back(DatumGetObjectId(types[i]));
	loader->owner = DatumGetObjectId(row.values[column::owner]);
	for (const std::string &setting : texts_at(row, column::settings))
	{
		size_t equals = setting.find('=');

		loader->setting_names.push_back(setting.substr(0, equals));
		loader->setting_values.push_back(setting.substr(equals + 1));
	}
	for (const std::string &tag : texts_at(row, column::tags))
		loader->tags.push_back(loader->key.parse_template(tag));
	loader->ttl_ms = milliseconds_at(row, column::ttl);
	loader->negative_ttl_ms = milliseconds_at(row, column::negative_ttl);
	loader->stale_ms = milliseconds_at(row, column::stale_for);
	loader->soft_timeout_ms = milliseconds_at(row, column::soft_timeout);
	if (!row.nulls[column::eager])
		loader->eager = static_cast<double>(DatumGetFloat4(row.values[column::eager]));
	if (!row.nulls[column::warm])
		loader->warm = text_at(row, column::warm);
	loader->plain = !row.nulls[column::dialect];
	return loader;
}

void
read_loaders()
{
	MemoryContext context = pg::call([] {
		return AllocSetContextCreate(CurrentMemoryContext, "cache_ext loaders",
		                             ALLOCSET_DEFAULT_SIZES);
	});
	List *rows = pg::call([&] {
		MemoryContext before = MemoryContextSwitchTo(context);
		List *found = read_rows();

		MemoryContextSwitchTo(before);
		return found;
	});
	Loaders read;

	for (int i = 0; i < list_length(rows); ++i)
		read.push_back(loader_of(*static_cast<Row *>(list_nth(rows, i))));
	*loaders = std::move(read);
	eager = std::any_of(loaders->begin(), loaders->end(),
	                    [](const auto &loader) { return loader->eager > 0; });
	pg::call([&] { MemoryContextDelete(context); });
}

} /* namespace */

const std::vector<std::shared_ptr<const Loader>> &
all_loaders()
{
	if (loaders == nullptr)
		loaders = new Loaders();
	if (valid)
		return *loaders;
	try
	{
		read_loaders();
	}
	catch (...) /* cancelled, say: there are others than those of before */
	{
		valid = false;
		throw;
	}
	return *loaders;
}

bool
have_eager_loaders()
{
	(void) all_loaders();
	return eager;
}

LoaderMatch
find_loader(std::string_view key)
{
	LoaderMatch best;

	for (const auto &loader : all_loaders())
	{
		if (best.loader != nullptr &&
		    (loader->key.literal_bytes() < best.loader->key.literal_bytes() ||
		     (loader->key.literal_bytes() == best.loader->key.literal_bytes() &&
		      loader->pattern >= best.loader->pattern)))
			continue;
		if (auto values = loader->key.match(key))
			best = {loader, std::move(*values)};
	}
	return best;
}

static const Loader *acting = nullptr;

ActingLoader::ActingLoader(const Loader *loader) noexcept : before_(acting)
{
	acting = loader;
}

ActingLoader::~ActingLoader()
{
	acting = before_;
}

const Loader *
ActingLoader::current() noexcept
{
	return acting;
}

} /* namespace cache_ext::cache */
