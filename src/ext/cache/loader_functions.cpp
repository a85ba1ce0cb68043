/*-------------------------------------------------------------------------
 *
 * loader_functions.cpp
 *		cache_define() and cache_undefine().
 *
 * The only file that writes cache_ext_internal.loader.
 *
 *-------------------------------------------------------------------------
 */
#include <algorithm>
#include <cstring>

#include "ext/cache/arguments.hpp"
#include "ext/cache/loaders.hpp"
#include "ext/cache/query.hpp"
#include "ext/invalidation/items.hpp"
#include "ext/invalidation/tables.hpp"
#include "pg/guard.hpp"
#include "pg/memory.hpp"
#include "pg/objects.hpp"

extern "C" {
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(cache_ext_define);
PG_FUNCTION_INFO_V1(cache_ext_undefine);
PG_FUNCTION_INFO_V1(cache_ext_loaders_changed);
}

namespace cache_ext::cache {

namespace {

enum Argument
{
	kPattern,
	kQuery,
	kTtl,
	kTags,
	kNegativeTtl,
	kStaleFor,
	kEager,
	kSoftTimeout,
	kWarm,
	kDialect
};

/* Columns of the table; those of the arguments follow in the order of its definition. */
constexpr int kColumns = 13;
constexpr int kOwnerColumn = 4;

/* Settings that change what a query's text means or how its values look. */
const char *const kPinned[] = {"TimeZone",
                               "DateStyle",
                               "IntervalStyle",
                               "extra_float_digits",
                               "bytea_output",
                               "xmlbinary",
                               "xmloption",
                               "array_nulls",
                               "transform_null_equals",
                               "standard_conforming_strings",
                               "lc_monetary",
                               "lc_numeric",
                               "lc_time",
                               "default_text_search_config"};

struct Settings
{
	List *names;
	List *values;
};

void
pin(Settings *settings, const char *name, const char *value)
{
	settings->names = lappend(settings->names, pstrdup(name));
	settings->values = lappend(settings->values, pstrdup(value));
}

/*
 * The caller's temporary tables must not hide the tables that the definer
 * meant, so they come last in the path.
 */
Settings
settings_of_now()
{
	Settings settings = {NIL, NIL};
	const char *path = GetConfigOption("search_path", false, false);

	if (strstr(path, "pg_temp") == nullptr)
		path = path[0] == '\0' ? "pg_temp" : psprintf("%s, pg_temp", path);
	pin(&settings, "search_path", path);
	pin(&settings, "row_security", "on");
	for (const char *name : kPinned)
		pin(&settings, name, GetConfigOption(name, false, false));
	return settings;
}

Datum
array_of(List *names, List *values)
{
	auto *elements = static_cast<Datum *>(palloc(sizeof(Datum) * list_length(names)));

	for (int i = 0; i < list_length(names); ++i)
		elements[i] = CStringGetTextDatum(psprintf("%s=%s", static_cast<char *>(list_nth(names, i)),
		                                           static_cast<char *>(list_nth(values, i))));
	return PointerGetDatum(
	    construct_array(elements, list_length(names), TEXTOID, -1, false, TYPALIGN_INT));
}

/* Pattern and tags hold together; returns how many placeholders there are. */
int
check_pattern_and_tags(std::string_view pattern, const Names &tags)
{
	return pg::guard([&] {
		KeyPattern key = KeyPattern::parse(pattern);

		for (int i = 0; i < tags.count; ++i)
			(void) key.parse_template(tags.names[i]);
		return static_cast<int>(key.names().size());
	});
}

/* The query can be run, and with these types of its arguments. */
Oid *
check_loader_query(const char *text, int arguments, bool has_ttl, const Settings &settings)
{
	int count = list_length(settings.names);
	auto **names = static_cast<const char **>(palloc(sizeof(char *) * count));
	auto **values = static_cast<const char **>(palloc(sizeof(char *) * count));
	RunAs run_as = {GetUserId(), count, names, values};
	QueryCall call = {};
	QueryAnswer answer;

	for (int i = 0; i < count; ++i)
	{
		names[i] = static_cast<char *>(list_nth(settings.names, i));
		values[i] = static_cast<char *>(list_nth(settings.values, i));
	}
	call.text = text;
	call.argument_count = arguments;
	call.allow_volatile = has_ttl;
	call.run_as = &run_as;
	return check_query(call, &answer);
}

Relation
open_loaders()
{
	Oid table = pg::internal_table("loader");

	if (!OidIsValid(table))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
		                errmsg("extension \"cache_ext\" is not installed in this database")));
	return table_open(table, ShareRowExclusiveLock);
}

/* The row of the pattern; 42501 when it is another's.  A null pointer: none. */
HeapTuple
find_row(Relation heap, std::string_view pattern)
{
	SysScanDesc scan = systable_beginscan(heap, InvalidOid, false, nullptr, 0, nullptr);
	HeapTuple found = nullptr;

	for (HeapTuple tuple = systable_getnext(scan); tuple != nullptr && found == nullptr;
	     tuple = systable_getnext(scan))
	{
		Datum values[kColumns];
		bool nulls[kColumns];

		heap_deform_tuple(tuple, RelationGetDescr(heap), values, nulls);
		if (pg::view(DatumGetTextPP(values[0])) != pattern)
			continue;
		if (!has_privs_of_role(GetUserId(), DatumGetObjectId(values[kOwnerColumn - 1])))
			ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			                errmsg("must be owner of cache loader \"%.*s\"",
			                       static_cast<int>(pattern.size()), pattern.data())));
		found = heap_copytuple(tuple);
	}
	systable_endscan(scan);
	return found;
}

/* Every session reads the loaders anew. */
void
announce(Relation heap)
{
	CacheInvalidateRelcache(heap);
	CommandCounterIncrement();
}

/* Is there a loader that may have answered keys of this pattern so far?  Told by what stands before
 * the placeholders. */
bool
may_meet_another(std::string_view pattern)
{
	std::string_view own = pattern.substr(0, pattern.find('{'));

	for (const auto &loader : all_loaders())
	{
		std::string_view other =
		    std::string_view(loader->pattern).substr(0, loader->pattern.find('{'));
		size_t common = std::min(own.size(), other.size());

		if (loader->pattern != pattern && own.substr(0, common) == other.substr(0, common))
			return true;
	}
	return false;
}

/* What an earlier definition has stored is no answer of this one's. */
void
void_entries(std::string_view pattern)
{
	pg::guard([&] {
		std::string glob = KeyPattern::parse(pattern).glob();

		pg::call([&] { invalidation::collect_pattern(glob); });
	});
}

void
check_options(FunctionCallInfo fcinfo)
{
	float4 eager = PG_ARGISNULL(kEager) ? 0.5F : PG_GETARG_FLOAT4(kEager);

	for (int number : {kNegativeTtl, kStaleFor, kSoftTimeout})
		if (!PG_ARGISNULL(number))
			(void) ttl_argument(fcinfo, number);
	if (!(eager > 0 && eager < 1))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("eager must be greater than 0 and less than 1")));
	if (dialect_argument(fcinfo, kDialect) && !(PG_ARGISNULL(kStaleFor) && PG_ARGISNULL(kEager)))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("a bare value does not say how old it is"),
		                errhint("Give no dialect, or neither stale_for nor eager.")));
}

} /* namespace */

} /* namespace cache_ext::cache */

using namespace cache_ext;

extern "C" {

/* cache_define(pattern, query, ttl, tags, negative_ttl, stale_for, eager, soft_timeout, warm,
 * dialect) */
Datum
cache_ext_define(PG_FUNCTION_ARGS)
{
	using namespace cache;

	PreventCommandIfReadOnly("cache_define()");
	if (PG_ARGISNULL(kPattern))
		refuse_null("cache key pattern");
	if (PG_ARGISNULL(kQuery))
		refuse_null("query of a cache loader");

	std::string_view pattern = key_argument(fcinfo, kPattern);
	const char *query = text_to_cstring(PG_GETARG_TEXT_PP(kQuery));
	Names tags = tags_argument(fcinfo, kTags);
	int placeholders = check_pattern_and_tags(pattern, tags);
	Settings settings = settings_of_now();
	bool has_ttl = ttl_argument(fcinfo, kTtl) > 0;

	check_options(fcinfo);

	Oid *types = check_loader_query(query, placeholders, has_ttl, settings);
	auto *type_datums = static_cast<Datum *>(palloc(sizeof(Datum) * Max(placeholders, 1)));

	for (int i = 0; i < placeholders; ++i)
		type_datums[i] = ObjectIdGetDatum(types[i]);
	if (!PG_ARGISNULL(kWarm))
		(void) check_loader_query(text_to_cstring(PG_GETARG_TEXT_PP(kWarm)), 0, true, settings);

	Datum values[kColumns] = {PG_GETARG_DATUM(kPattern),
	                          PG_GETARG_DATUM(kQuery),
	                          PointerGetDatum(construct_array(type_datums, placeholders, REGTYPEOID,
	                                                          sizeof(Oid), true, TYPALIGN_INT)),
	                          ObjectIdGetDatum(GetUserId()),
	                          array_of(settings.names, settings.values),
	                          PG_GETARG_DATUM(kTtl),
	                          PG_ARGISNULL(kTags) ? PointerGetDatum(construct_empty_array(TEXTOID))
	                                              : PG_GETARG_DATUM(kTags),
	                          PG_GETARG_DATUM(kNegativeTtl),
	                          PG_GETARG_DATUM(kStaleFor),
	                          PG_GETARG_DATUM(kEager),
	                          PG_GETARG_DATUM(kSoftTimeout),
	                          PG_GETARG_DATUM(kWarm),
	                          PG_GETARG_DATUM(kDialect)};
	bool nulls[kColumns] = {false,
	                        false,
	                        false,
	                        false,
	                        false,
	                        PG_ARGISNULL(kTtl),
	                        false,
	                        PG_ARGISNULL(kNegativeTtl),
	                        PG_ARGISNULL(kStaleFor),
	                        PG_ARGISNULL(kEager),
	                        PG_ARGISNULL(kSoftTimeout),
	                        PG_ARGISNULL(kWarm),
	                        PG_ARGISNULL(kDialect)};
	Relation heap = open_loaders();
	HeapTuple row = heap_form_tuple(RelationGetDescr(heap), values, nulls);
	HeapTuple before = find_row(heap, pattern);
	bool meets_others = pg::guard([&] { return may_meet_another(pattern); });

	if (before != nullptr)
		CatalogTupleUpdate(heap, &before->t_self, row);
	else
		CatalogTupleInsert(heap, row);
	announce(heap);
	table_close(heap, NoLock);
	if (before != nullptr || meets_others)
		void_entries(pattern);
	PG_RETURN_VOID();
}

Datum
cache_ext_undefine(PG_FUNCTION_ARGS)
{
	using namespace cache;

	PreventCommandIfReadOnly("cache_undefine()");
	if (PG_ARGISNULL(kPattern))
		refuse_null("cache key pattern");

	std::string_view pattern = key_argument(fcinfo, kPattern);
	Relation heap = open_loaders();
	HeapTuple row = find_row(heap, pattern);

	if (row == nullptr)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
		                errmsg("cache loader \"%.*s\" does not exist",
		                       static_cast<int>(pattern.size()), pattern.data())));
	CatalogTupleDelete(heap, &row->t_self);
	announce(heap);
	table_close(heap, NoLock);
	void_entries(pattern);
	PG_RETURN_VOID();
}

/* Trigger of the table itself, for rows that are written by hand. */
Datum
cache_ext_loaders_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
		                errmsg("function is for triggers only")));
	CacheInvalidateRelcache(reinterpret_cast<TriggerData *>(fcinfo->context)->tg_relation);
	PG_RETURN_POINTER(nullptr);
}
}
