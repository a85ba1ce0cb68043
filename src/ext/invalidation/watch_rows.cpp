/*-------------------------------------------------------------------------
 *
 * watch_rows.cpp
 *		Reading and writing cache_ext_internal.watch.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/watch_rows.hpp"

#include <string>

#include "core/invalidation/dialect.hpp"
#include "core/invalidation/glob.hpp"
#include "core/invalidation/item.hpp"
#include "core/invalidation/target.hpp"
#include "ext/invalidation/tables.hpp"
#include "pg/guard.hpp"
#include "pg/objects.hpp"

extern "C" {
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/skey.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
}

namespace cache_ext::invalidation {

namespace {

namespace column {
enum
{
	relation,
	watch,
	keys,
	tags,
	patterns,
	channels,
	message,
	columns,
	target,
	repeat_ms,
	count
};
}

namespace target_column {
enum
{
	name,
	dialect,
	options,
	prefix,
	tags,
	count
};
}

Oid
known_table(const char *name)
{
	Oid table = pg::internal_table(name);

	if (!OidIsValid(table))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
		                errmsg("extension \"cache_ext\" is not installed in this database")));
	return table;
}

Relation
open_watches(LOCKMODE lock)
{
	return table_open(known_table("watch"), lock);
}

using OfTarget = std::string (*)(std::string_view prefix, std::string_view text);

/* The same templates as the target means them. */
List *
translate(List *texts, const char *prefix, OfTarget of_target)
{
	ListCell *cell;

	foreach (cell, texts)
	{
		const char *text = static_cast<char *>(lfirst(cell));
		char *translated = nullptr;

		pg::guard([&] {
			std::string name = of_target(prefix, text);

			translated = pg::call([&] { return pnstrdup(name.data(), name.size()); });
		});
		lfirst(cell) = translated;
	}
	return texts;
}

void
translate_to_target(WatchRow *row)
{
	row->tag_kind = ItemKind::kTag;
	row->tag_pattern_kind = ItemKind::kTagPattern;
	if (row->target == nullptr)
		return;

	TargetRow target = read_target(row->target);

	if (target.prefix[0] == '\0')
		return;
	row->keys = translate(row->keys, target.prefix, key_of_target);
	row->patterns = translate(row->patterns, target.prefix, pattern_of_target);
	row->tags = translate(row->tags, target.prefix, tag_of_target);
	row->tag_kind = ItemKind::kTagSet;
	row->tag_pattern_kind = ItemKind::kTagSetPattern;
}

List *
strings_of(Datum array, Oid type)
{
	bool names = type == NAMEOID;
	Datum *elements;
	int count;
	List *list = NIL;

	deconstruct_array(DatumGetArrayTypeP(array), type, names ? NAMEDATALEN : -1, false,
	                  names ? TYPALIGN_CHAR : TYPALIGN_INT, &elements, nullptr, &count);
	for (int i = 0; i < count; ++i)
		list = lappend(list, names ? pstrdup(NameStr(*DatumGetName(elements[i])))
		                           : TextDatumGetCString(elements[i]));
	return list;
}

Datum
array_of(List *strings, Oid type)
{
	bool names = type == NAMEOID;
	auto *elements = static_cast<Datum *>(palloc(sizeof(Datum) * (list_length(strings) + 1)));
	int count = 0;
	ListCell *cell;

	foreach (cell, strings)
	{
		auto *text = static_cast<char *>(lfirst(cell));

		if (names)
		{
			auto *name = static_cast<Name>(palloc0(sizeof(NameData)));

			namestrcpy(name, text);
			elements[count++] = NameGetDatum(name);
		}
		else
			elements[count++] = CStringGetTextDatum(text);
	}
	return PointerGetDatum(construct_array(elements, count, type, names ? NAMEDATALEN : -1, false,
	                                       names ? TYPALIGN_CHAR : TYPALIGN_INT));
}

/* The scan by primary key, which orders the watches of a relation by their numbers. */
SysScanDesc
begin_scan(Relation heap, Oid relation, ScanKeyData *key)
{
	Oid index = InvalidOid;

	if (OidIsValid(relation))
	{
		ScanKeyInit(key, column::relation + 1, BTEqualStrategyNumber, F_OIDEQ,
		            ObjectIdGetDatum(relation));
		index = RelationGetPrimaryKeyIndex(heap
#if PG_VERSION_NUM >= 180000
		                                   ,
		                                   false
#endif
		);
	}
	return systable_beginscan(heap, index, OidIsValid(index), nullptr, OidIsValid(relation) ? 1 : 0,
	                          key);
}

/* Appends an item of one string. */
void
append_item(StringInfo items, ItemKind kind, std::string_view name)
{
	char number[kMaxNumberBytes];

	appendStringInfoChar(items, static_cast<char>(kind));
	appendBinaryStringInfo(items, number,
	                       static_cast<int>(put_number(number, name.size()) - number));
	appendBinaryStringInfo(items, name.data(), static_cast<int>(name.size()));
}

/* The widened form of each target; a target without placeholders stays what it is. */
int
append_widened(StringInfo items, List *targets, ItemKind exact, ItemKind widened)
{
	ListCell *cell;
	int count = 0;

	foreach (cell, targets)
	{
		const char *text = static_cast<char *>(lfirst(cell));

		pg::guard([&] {
			Target target = Target::parse(text);
			bool whole = !target.has_placeholders();
			std::string name =
			    whole ? target.literal() : target.widened(widened == exact /* a pattern */);

			pg::call([&] { append_item(items, whole ? exact : widened, name); });
		});
		++count;
	}
	return count;
}

} /* namespace */

TargetRow
read_target(const char *name)
{
	Relation heap = table_open(known_table("target"), AccessShareLock);
	ScanKeyData key;
	TargetRow row = {};

	ScanKeyInit(&key, target_column::name + 1, BTEqualStrategyNumber, F_TEXTEQ,
	            CStringGetTextDatum(name));

	SysScanDesc scan = systable_beginscan(heap, InvalidOid, false, nullptr, 1, &key);
	HeapTuple tuple = systable_getnext(scan);

	if (HeapTupleIsValid(tuple))
	{
		Datum values[target_column::count];
		bool nulls[target_column::count];

		heap_deform_tuple(tuple, RelationGetDescr(heap), values, nulls);
		row.prefix = TextDatumGetCString(values[target_column::prefix]);
		row.tags = DatumGetBool(values[target_column::tags]);
	}
	systable_endscan(scan);
	table_close(heap, AccessShareLock);
	if (row.prefix == nullptr)
		ereport(ERROR,
		        (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("target \"%s\" does not exist", name),
		         errhint("Declare it with cache_target_create().")));
	return row;
}

void
keep_targets()
{
	LockRelationOid(known_table("target"), ShareLock);
}

List *
read_watches(Oid relation)
{
	Relation heap = open_watches(AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan = begin_scan(heap, relation, &key);
	List *rows = NIL;

	for (HeapTuple tuple = systable_getnext(scan); tuple != nullptr; tuple = systable_getnext(scan))
	{
		Datum values[column::count];
		bool nulls[column::count];
		auto *row = static_cast<WatchRow *>(palloc0(sizeof(WatchRow)));

		heap_deform_tuple(tuple, RelationGetDescr(heap), values, nulls);
		row->relation = DatumGetObjectId(values[column::relation]);
		row->number = DatumGetInt32(values[column::watch]);
		row->keys = strings_of(values[column::keys], TEXTOID);
		row->tags = strings_of(values[column::tags], TEXTOID);
		row->patterns = strings_of(values[column::patterns], TEXTOID);
		row->channels = strings_of(values[column::channels], TEXTOID);
		if (!nulls[column::message])
			row->message = TextDatumGetCString(values[column::message]);
		row->filtered = !nulls[column::columns];
		if (row->filtered)
			row->columns = strings_of(values[column::columns], NAMEOID);
		if (!nulls[column::target])
			row->target = TextDatumGetCString(values[column::target]);
		if (!nulls[column::repeat_ms])
			row->repeat_ms = static_cast<uint64>(DatumGetInt64(values[column::repeat_ms]));
		translate_to_target(row);
		rows = lappend(rows, row);
	}
	systable_endscan(scan);
	table_close(heap, AccessShareLock);
	return rows;
}

void
insert_watch(const WatchRow &row)
{
	Relation heap = open_watches(RowExclusiveLock);
	Datum values[column::count];
	bool nulls[column::count] = {};

	values[column::relation] = ObjectIdGetDatum(row.relation);
	values[column::watch] = Int32GetDatum(row.number);
	values[column::keys] = array_of(row.keys, TEXTOID);
	values[column::tags] = array_of(row.tags, TEXTOID);
	values[column::patterns] = array_of(row.patterns, TEXTOID);
	values[column::channels] = array_of(row.channels, TEXTOID);
	nulls[column::message] = row.message == nullptr;
	if (row.message != nullptr)
		values[column::message] = CStringGetTextDatum(row.message);
	nulls[column::columns] = !row.filtered;
	if (row.filtered)
		values[column::columns] = array_of(row.columns, NAMEOID);
	nulls[column::target] = row.target == nullptr;
	if (row.target != nullptr)
		values[column::target] = CStringGetTextDatum(row.target);
	nulls[column::repeat_ms] = row.repeat_ms == 0;
	values[column::repeat_ms] = Int64GetDatum(static_cast<int64>(row.repeat_ms));

	CatalogTupleInsert(heap, heap_form_tuple(RelationGetDescr(heap), values, nulls));
	table_close(heap, NoLock);
	CommandCounterIncrement();
}

int
delete_watches(Oid relation, int32 number)
{
	Relation heap = open_watches(RowExclusiveLock);
	ScanKeyData key;
	SysScanDesc scan = begin_scan(heap, relation, &key);
	int count = 0;

	for (HeapTuple tuple = systable_getnext(scan); tuple != nullptr; tuple = systable_getnext(scan))
	{
		bool null;
		int32 found =
		    DatumGetInt32(heap_getattr(tuple, column::watch + 1, RelationGetDescr(heap), &null));

		if (number != 0 && found != number)
			continue;
		CatalogTupleDelete(heap, &tuple->t_self);
		++count;
	}
	systable_endscan(scan);
	table_close(heap, NoLock);
	CommandCounterIncrement();
	return count;
}

int
append_widened_items(StringInfo items)
{
	List *rows = read_watches(InvalidOid);
	ListCell *cell;
	int count = 0;

	foreach (cell, rows)
	{
		auto *row = static_cast<WatchRow *>(lfirst(cell));

		count += append_widened(items, row->keys, ItemKind::kKey, ItemKind::kPattern);
		count += append_widened(items, row->tags, row->tag_kind, row->tag_pattern_kind);
		count += append_widened(items, row->patterns, ItemKind::kPattern, ItemKind::kPattern);
	}
	return count;
}

} /* namespace cache_ext::invalidation */
