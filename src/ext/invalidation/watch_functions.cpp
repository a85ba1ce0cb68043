/*-------------------------------------------------------------------------
 *
 * watch_functions.cpp
 *		cache_watch() and cache_unwatch().
 *
 *-------------------------------------------------------------------------
 */
#include <string>

#include "core/base/error.hpp"
#include "core/invalidation/glob.hpp"
#include "core/invalidation/target.hpp"
#include "ext/invalidation/items.hpp"
#include "ext/invalidation/journal.hpp"
#include "ext/invalidation/watch_rows.hpp"
#include "ext/statistics/capture.hpp"
#include "ext/statistics/fill.hpp"
#include "ext/statistics/triggers.hpp"
#include "pg/guard.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "access/xlog.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(cache_ext_watch);
PG_FUNCTION_INFO_V1(cache_ext_unwatch);
}

namespace cache_ext::invalidation {

namespace {

constexpr int64 kLongestRepeatMs = INT64CONST(86400000);

enum Argument
{
	kRelation,
	kKeys,
	kTags,
	kPatterns,
	kChannels,
	kMessage,
	kColumns,
	kTarget,
	kRepeatAfter
};

/* The non-null strings of an array argument; NULL stands for an empty one. */
List *
strings_argument(FunctionCallInfo fcinfo, int number, const char *what)
{
	bool names = number == kColumns;
	Datum *elements;
	bool *nulls;
	int count;
	List *list = NIL;

	if (PG_ARGISNULL(number))
		return NIL;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(number), names ? NAMEOID : TEXTOID,
	                  names ? NAMEDATALEN : -1, false, names ? TYPALIGN_CHAR : TYPALIGN_INT,
	                  &elements, &nulls, &count);
	for (int i = 0; i < count; ++i)
	{
		if (nulls[i])
			ereport(ERROR,
			        (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", what)));
		list = lappend(list, names ? pstrdup(NameStr(*DatumGetName(elements[i])))
		                           : TextDatumGetCString(elements[i]));
	}
	return list;
}

[[noreturn]] void
refuse_relation(Oid relation, const char *detail, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
	                errmsg("cannot watch relation \"%s\"", get_rel_name(relation)),
	                errdetail_internal("%s", detail), hint != nullptr ? errhint("%s", hint) : 0));
	pg_unreachable();
}

/* Locks the relation against other declarations, not against writers. */
void
check_relation(Oid relation)
{
	LockRelationOid(relation, ShareUpdateExclusiveLock);

	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
		                errmsg("relation with OID %u does not exist", relation)));

	auto *form = reinterpret_cast<Form_pg_class>(GETSTRUCT(tuple));
	AclResult allowed = pg_class_aclcheck(relation, GetUserId(), ACL_TRIGGER);

	if (allowed != ACLCHECK_OK)
		aclcheck_error(allowed, get_relkind_objtype(form->relkind), NameStr(form->relname));
	if (form->relkind != RELKIND_RELATION && form->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
		                errmsg("\"%s\" is not a table", NameStr(form->relname)),
		                errdetail("Only a table tells which of its rows change."),
		                errhint("Watch the tables it reads.")));
	if (IsCatalogRelationOid(relation) ||
	    form->relnamespace == get_namespace_oid("cache_ext_internal", true))
		refuse_relation(relation, "It is a system catalog or an internal table.", nullptr);
	if (form->relpersistence == RELPERSISTENCE_TEMP)
		refuse_relation(relation, "It is temporary: nobody else ever sees its rows.", nullptr);
	if (form->relpersistence == RELPERSISTENCE_UNLOGGED)
		refuse_relation(relation, "It is unlogged: a crash empties it, and no row tells.",
		                "Use ALTER TABLE ... SET LOGGED first.");
	if (form->relispartition)
		refuse_relation(relation, "It is a partition: rows also come and go through its parent.",
		                "Watch the partitioned table at the top.");
	ReleaseSysCache(tuple);
}

void
check_visible(Oid relation, const char *column)
{
	if (statistics::is_hidden_from_triggers(relation, get_attnum(relation, column)))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		                errmsg("cannot use generated column \"%s\" in a watch", column),
		                errdetail("It is virtual, or of a partitioned table, and PostgreSQL shows "
		                          "triggers its rows without the value."),
		                errhint("Name the columns that it is generated from.")));
}

/* The placeholders name columns of the relation, and the widened form can be asked of Redis. */
void
check_target(Oid relation, const char *text, const char *what, bool is_pattern)
{
	pg::guard([&] {
		Target target = Target::parse(text);
		std::string widened = target.widened(is_pattern);

		if (target.parts().empty())
			throw Error(kInvalidParameterValue, std::string(what) + " must not be empty");
		if (strcmp(what, "key") == 0 && *pg::key_prefix == '\0' &&
		    widened.find_first_not_of('*') == std::string::npos)
			throw Error(kInvalidParameterValue, "key of a watch must have text beside placeholders",
			            "Where very many rows change, or all of them, everything that such keys "
			            "could name is removed: here all of Redis.",
			            "Begin it with a text of its own, as in bag:{id}.");
		if (strcmp(what, "message") != 0)
			pg::call([&] { check_pattern(widened); });

		for (const TargetPart &part : target.parts())
		{
			if (part.kind == TargetPart::Kind::kLiteral)
				continue;

			const char *column = part.text.c_str();

			pg::call([&] {
				AttrNumber number = get_attnum(relation, column);

				if (number == InvalidAttrNumber)
					ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
					                errmsg("column \"%s\" of relation \"%s\" does not exist",
					                       column, get_rel_name(relation)),
					                errdetail("Watch target \"%s\" names it.", text)));
				if (number < 0)
					ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					                errmsg("cannot use system column \"%s\" in a watch", column)));
				check_visible(relation, column);
			});
		}
	});
}

void
check_targets(Oid relation, List *texts, const char *what, bool is_pattern)
{
	ListCell *cell;

	foreach (cell, texts)
		check_target(relation, static_cast<char *>(lfirst(cell)), what, is_pattern);
}

void
check_columns(Oid relation, List *columns)
{
	ListCell *cell;

	foreach (cell, columns)
	{
		auto *column = static_cast<char *>(lfirst(cell));

		if (get_attnum(relation, column) <= 0)
			ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
			                errmsg("column \"%s\" of relation \"%s\" does not exist", column,
			                       get_rel_name(relation))));
		check_visible(relation, column);
	}
}

void
check_dialect(WatchRow *row, char *name)
{
	keep_targets();

	TargetRow target = read_target(name);

	if (row->tags != NIL && !target.tags)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		                errmsg("cannot name tags for target \"%s\"", name),
		                errdetail("Its library keeps no sets of the keys of a tag."),
		                errhint("Name keys or patterns.")));
	row->target = name;
}

/* In milliseconds; months are not allowed, since nobody means those. */
uint64
repeat_delay(const Interval *interval)
{
	int64 ms = interval->time / 1000 + interval->day * INT64CONST(86400000);

	if (interval->month != 0 || ms <= 0 || ms > kLongestRepeatMs)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("repeat_after must be more than zero and at most one day")));
	return static_cast<uint64>(ms);
}

int32
next_number(Oid relation)
{
	List *rows = read_watches(relation);

	return rows == NIL ? 1 : static_cast<WatchRow *>(llast(rows))->number + 1;
}

void
refuse_in_recovery()
{
	if (RecoveryInProgress())
		ereport(ERROR, (errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
		                errmsg("cannot declare watches during recovery")));
}

} /* namespace */

} /* namespace cache_ext::invalidation */

extern "C" {

Datum
cache_ext_watch(PG_FUNCTION_ARGS)
{
	using namespace cache_ext::invalidation;
	namespace statistics = cache_ext::statistics;
	WatchRow row = {};
	ListCell *cell;

	refuse_in_recovery();
	if (PG_ARGISNULL(kRelation))
		ereport(ERROR,
		        (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("relation must not be null")));

	row.relation = PG_GETARG_OID(kRelation);
	check_relation(row.relation);
	row.keys = strings_argument(fcinfo, kKeys, "key");
	row.tags = strings_argument(fcinfo, kTags, "tag");
	row.patterns = strings_argument(fcinfo, kPatterns, "pattern");
	row.channels = strings_argument(fcinfo, kChannels, "channel");
	row.filtered = !PG_ARGISNULL(kColumns);
	row.columns = strings_argument(fcinfo, kColumns, "column");
	if (!PG_ARGISNULL(kMessage))
		row.message = text_to_cstring(PG_GETARG_TEXT_PP(kMessage));

	if (row.keys == NIL && row.tags == NIL && row.patterns == NIL && row.channels == NIL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("a watch needs a key, a tag, a pattern or a channel")));
	if (row.message != nullptr && row.channels == NIL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("a message needs a channel to be published on")));
	check_targets(row.relation, row.keys, "key", false);
	check_targets(row.relation, row.tags, "tag", false);
	check_targets(row.relation, row.patterns, "pattern", true);
	check_targets(row.relation, row.channels, "channel", false);
	foreach (cell, row.channels)
		check_channel(static_cast<char *>(lfirst(cell)));
	if (row.message != nullptr && row.message[0] != '\0')
		check_target(row.relation, row.message, "message", false);
	check_columns(row.relation, row.columns);
	if (!PG_ARGISNULL(kTarget))
		check_dialect(&row, text_to_cstring(PG_GETARG_TEXT_PP(kTarget)));
	if (!PG_ARGISNULL(kRepeatAfter))
		row.repeat_ms = repeat_delay(PG_GETARG_INTERVAL_P(kRepeatAfter));

	cache_ext::pg::guard([&] { (void) statistics::ensure_source(row.relation); });
	/* Who is writing now writes for the watches of before: its values must not be cached meanwhile.
	 */
	statistics::lock_sources(list_make1_oid(row.relation), ShareRowExclusiveLock);
	row.number = next_number(row.relation);
	insert_watch(row);
	statistics::forget_compiled(row.relation);
	PG_RETURN_INT32(row.number);
}

Datum
cache_ext_unwatch(PG_FUNCTION_ARGS)
{
	using namespace cache_ext::invalidation;
	namespace statistics = cache_ext::statistics;

	refuse_in_recovery();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
		        (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("relation must not be null")));

	Oid relation = PG_GETARG_OID(0);
	int32 number = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT32(1);

	check_relation(relation);
	if (!PG_ARGISNULL(1) && number <= 0)
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("watch numbers are positive")));
	if (delete_watches(relation, number) == 0 && number != 0)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
		                errmsg("relation \"%s\" has no watch %d", get_rel_name(relation), number)));
	statistics::forget_compiled(relation);
	cache_ext::pg::guard([&] { statistics::release_source(relation); });
	PG_RETURN_VOID();
}
}
