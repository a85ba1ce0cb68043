/*-------------------------------------------------------------------------
 *
 * source_index.cpp
 *		Extremes from an index of the source; see source_index.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/source_index.hpp"

extern "C" {
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relscan.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "catalog/pg_index.h"
#include "executor/tuptable.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/typcache.h"
}

namespace cache_ext::statistics {

struct SourceIndex
{
	MemoryContext context; /* of the scan, which keeps memory from probe to probe */
	Relation table;
	Relation index;
	Snapshot snapshot;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	int group_count;
	int *group_of_column; /* index column -> group */
	const KeyType *groups;
	FmgrInfo *equality; /* by group */
	AttrNumber value;   /* column of the table */
	bool descending;
	bool by_value;
	int16 length;
};

/* ---- which index ---- */

static AttrNumber
plain_column(Node *expr)
{
	return IsA(expr, Var) ? ((Var *) expr)->varattno : (AttrNumber) InvalidAttrNumber;
}

bool
only_extremes(const Definition *d, const Part &part)
{
	const Block &block = d->blocks[part.block];
	ListCell *cell;

	if (part.kind != PartKind::kValues || part.filter != nullptr || block.where != NIL ||
	    block.side_count > 0 || block.exists_part >= 0 || plain_column((Node *) part.value) <= 0)
		return false;
	foreach (cell, d->group_exprs)
		if (plain_column((Node *) lfirst(cell)) <= 0)
			return false;
	for (int i = 0; i < d->derived_count; ++i)
		if (&d->parts[d->derived[i].part] == &part &&
		    d->derived[i].kind == AggregateKind::kDistinct)
			return false;
	return true;
}

static int
group_of(const Definition *d, AttrNumber column)
{
	int group = 0;
	ListCell *cell;

	foreach (cell, d->group_exprs)
	{
		if (plain_column((Node *) lfirst(cell)) == column)
			return group;
		++group;
	}
	return -1;
}

/* A column of pg_index that may be wider than its C struct. */
static oidvector *
index_vector(HeapTuple index, AttrNumber column)
{
	bool null;

	return reinterpret_cast<oidvector *>(
	    DatumGetPointer(SysCacheGetAttr(INDEXRELID, index, column, &null)));
}

/* Is it a btree column in the type's usual order?  (An operator family belongs to one access
 * method.) */
static bool
orders_by(HeapTuple index, int column, const KeyType &key)
{
	TypeCacheEntry *type = lookup_type_cache(key.type, TYPECACHE_BTREE_OPFAMILY);
	Oid order = index_vector(index, Anum_pg_index_indclass)->values[column];

	return OidIsValid(type->btree_opf) && get_opclass_family(order) == type->btree_opf &&
	       get_opclass_input_type(order) == type->btree_opintype &&
	       index_vector(index, Anum_pg_index_indcollation)->values[column] == key.collation;
}

bool
serves_all_snapshots(HeapTuple index)
{
	auto *form = reinterpret_cast<Form_pg_index>(GETSTRUCT(index));

	return form->indisvalid && form->indislive &&
	       heap_attisnull(index, Anum_pg_index_indpred, nullptr) &&
	       (!form->indcheckxmin ||
	        TransactionIdPrecedes(HeapTupleHeaderGetXmin(index->t_data), TransactionXmin));
}

static bool
fits(const Definition *d, const Part &part, HeapTuple index)
{
	auto *form = reinterpret_cast<Form_pg_index>(GETSTRUCT(index));

	if (form->indnkeyatts <= d->group_count || !serves_all_snapshots(index))
		return false;
	for (int i = 0; i < d->group_count; ++i)
	{
		int group = group_of(d, form->indkey.values[i]);

		if (group < 0 || !orders_by(index, i, d->groups[group]))
			return false;
	}
	return form->indkey.values[d->group_count] == plain_column((Node *) part.value) &&
	       orders_by(index, d->group_count, part.keys[d->group_count]);
}

Oid
find_source_index(const Definition *definition, const Part &part)
{
	Oid found = InvalidOid;
	ListCell *cell;

	if (!only_extremes(definition, part))
		return InvalidOid;

	/* A partition or child would have an index of its own. */
	Relation table = table_open(definition->blocks[part.block].source, AccessShareLock);
	if (table->rd_rel->relkind == RELKIND_RELATION && !table->rd_rel->relhassubclass)
	{
		foreach (cell, RelationGetIndexList(table))
		{
			HeapTuple index = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(lfirst_oid(cell)));

			if (!HeapTupleIsValid(index))
				continue;
			if (!OidIsValid(found) && fits(definition, part, index))
				found = lfirst_oid(cell);
			ReleaseSysCache(index);
		}
	}
	table_close(table, NoLock);
	return found;
}

/* ---- reading it ---- */

SourceIndex *
open_source_index(const Definition *definition, const Part &part, Oid index, Snapshot snapshot)
{
	auto *source = static_cast<SourceIndex *>(palloc0(sizeof(SourceIndex)));
	int groups = definition->group_count;
	const KeyType &value = part.keys[groups];

	source->context = CurrentMemoryContext;
	source->table = table_open(definition->blocks[part.block].source, AccessShareLock);
	source->index = index_open(index, AccessShareLock);
	source->snapshot = snapshot;
	source->slot = table_slot_create(source->table, nullptr);
	source->group_count = groups;
	source->groups = definition->groups;
	source->group_of_column = static_cast<int *>(palloc(sizeof(int) * Max(groups, 1)));
	source->equality = static_cast<FmgrInfo *>(palloc0(sizeof(FmgrInfo) * Max(groups, 1)));
	for (int i = 0; i < groups; ++i)
	{
		source->group_of_column[i] =
		    group_of(definition, source->index->rd_index->indkey.values[i]);
		fmgr_info(definition->groups[i].equality_proc, &source->equality[i]);
	}
	source->value = source->index->rd_index->indkey.values[groups];
	source->descending = (source->index->rd_indoption[groups] & INDOPTION_DESC) != 0;
	source->by_value = value.by_value;
	source->length = value.length;
#if PG_VERSION_NUM >= 180000
	source->scan = index_beginscan(source->table, source->index, snapshot, nullptr, groups + 1, 0);
#else
	source->scan = index_beginscan(source->table, source->index, snapshot, groups + 1, 0);
#endif
	return source;
}

void
close_source_index(SourceIndex *index)
{
	if (index == nullptr)
		return;
	ExecDropSingleTupleTableSlot(index->slot);
	index_endscan(index->scan);
	index_close(index->index, NoLock);
	table_close(index->table, NoLock);
}

bool
outermost_in_source(SourceIndex *source, AggregateKind kind, const Datum *group, const bool *nulls,
                    Datum *value)
{
	ScanKeyData keys[INDEX_MAX_KEYS];
	bool last = (kind == AggregateKind::kMaximum) != source->descending;
	bool null;

	for (int i = 0; i < source->group_count; ++i)
	{
		int number = source->group_of_column[i];

		if (nulls[number])
			ScanKeyEntryInitialize(&keys[i], SK_ISNULL | SK_SEARCHNULL, (AttrNumber) (i + 1),
			                       InvalidStrategy, InvalidOid, InvalidOid, InvalidOid, (Datum) 0);
		else
			ScanKeyEntryInitializeWithInfo(&keys[i], 0, (AttrNumber) (i + 1), BTEqualStrategyNumber,
			                               InvalidOid, source->groups[number].collation,
			                               &source->equality[number], group[number]);
	}
	ScanKeyEntryInitialize(&keys[source->group_count], SK_ISNULL | SK_SEARCHNOTNULL,
	                       (AttrNumber) (source->group_count + 1), InvalidStrategy, InvalidOid,
	                       InvalidOid, InvalidOid, (Datum) 0);

	MemoryContext caller = MemoryContextSwitchTo(source->context);
	index_rescan(source->scan, keys, source->group_count + 1, nullptr, 0);
	bool found = index_getnext_slot(
	    source->scan, last ? BackwardScanDirection : ForwardScanDirection, source->slot);
	MemoryContextSwitchTo(caller);
	if (!found)
		return false;
	*value = datumCopy(slot_getattr(source->slot, source->value, &null), source->by_value,
	                   source->length);
	ExecClearTuple(source->slot);
	return true;
}

} /* namespace cache_ext::statistics */
