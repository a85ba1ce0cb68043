/*-------------------------------------------------------------------------
 *
 * definition.cpp
 *		Definitions of existing statistics, and what is common to their keys.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/definition.hpp"
#include "ext/statistics/source_index.hpp"

extern "C" {
#include "access/nbtree.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "rewrite/rewriteHandler.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/typcache.h"
}

namespace cache_ext::statistics {

void
totals_name(int32 statistic, char (&out)[NAMEDATALEN])
{
	snprintf(out, NAMEDATALEN, "totals_%d", statistic);
}

void
part_name(int32 statistic, int part, char (&out)[NAMEDATALEN])
{
	snprintf(out, NAMEDATALEN, "part_%d_%d", statistic, part + 1);
}

/*
 * Do equal values of a type have the same bytes?  character says so, but values
 * of different lengths, as expressions and columns without a length have, do not.
 */
static bool
is_equal_identical(const TypeCacheEntry *entry, Oid collation)
{
	if (entry->type_id == BPCHAROID)
		return false;

	Oid proc = get_opfamily_proc(entry->btree_opf, entry->btree_opintype, entry->btree_opintype,
	                             BTEQUALIMAGE_PROC);

	return OidIsValid(proc) && DatumGetBool(OidFunctionCall1Coll(
	                               proc, collation, ObjectIdGetDatum(entry->btree_opintype)));
}

bool
can_be_hashed(const KeyType &key)
{
	return OidIsValid(key.hash_proc) || key.equal_is_identical;
}

uint32
hash_of_value(const KeyType &key, FmgrInfo *hash, Datum value)
{
	if (OidIsValid(key.hash_proc))
		return DatumGetUInt32(FunctionCall1Coll(hash, key.collation, value));
	return datum_image_hash(value, key.by_value, key.length);
}

KeyType
key_type(Oid type, Oid collation, const char *what)
{
	TypeCacheEntry *entry =
	    lookup_type_cache(type, TYPECACHE_EQ_OPR | TYPECACHE_CMP_PROC | TYPECACHE_HASH_PROC |
	                                TYPECACHE_BTREE_OPFAMILY);

	if (!OidIsValid(entry->eq_opr) || !OidIsValid(entry->cmp_proc) ||
	    get_typtype(type) == TYPTYPE_PSEUDO)
		ereport(ERROR,
		        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		         errmsg("a statistic cannot contain %s of type %s", what, format_type_be(type)),
		         errdetail("Values are kept by key, which needs a btree operator class for the "
		                   "type."),
		         errhint("Cast the expression to a type such as text.")));

	KeyType key = {};
	key.type = type;
	key.collation = collation;
	get_typlenbyvalalign(type, &key.length, &key.by_value, &key.alignment);
	key.equality = entry->eq_opr;
	key.equality_proc = get_opcode(entry->eq_opr);
	key.order_proc = entry->cmp_proc;
	key.hash_proc = entry->hash_proc;
	key.equal_is_identical = is_equal_identical(entry, collation);
	return key;
}

List *
source_relations(const Definition *definition)
{
	List *relations = NIL;

	for (int i = 0; i < definition->block_count; ++i)
	{
		const Block &block = definition->blocks[i];

		for (int side = 0; side < block.side_count; ++side)
			relations = list_append_unique_oid(relations, block.sides[side].source);
		if (block.side_count > 0)
			continue;
		relations = list_append_unique_oid(relations, block.source);
		if (block.exists_part >= 0)
			relations = list_append_unique_oid(relations, block.right_source);
	}
	list_sort(relations, list_oid_cmp);
	return relations;
}

/* ---- cache of this backend ---- */

struct CachedDefinition
{
	int32 statistic;
	Definition *definition;
};

static HTAB *definitions = nullptr;

static void
discard(CachedDefinition *entry)
{
	/* Whoever still reads it is in this transaction. */
	if (entry->definition != nullptr)
		MemoryContextSetParent(entry->definition->context, TopTransactionContext);
	entry->definition = nullptr;
}

static void
locate_tables(Definition *definition)
{
	MemoryContext caller = MemoryContextSwitchTo(definition->context);
	List *sources = sources_of_statistic(definition->row.id);
	char name[NAMEDATALEN];
	ListCell *cell;

	totals_name(definition->row.id, name);
	definition->totals = internal_relation(name);
	for (int i = 0; i < definition->part_count; ++i)
	{
		part_name(definition->row.id, i, name);

		Part &part = definition->parts[i];
		part.table = internal_relation(name, only_extremes(definition, part));
		part.by_index = !OidIsValid(part.table);
	}
	definition->sources = static_cast<Oid *>(palloc(sizeof(Oid) * Max(list_length(sources), 1)));
	definition->logs = static_cast<Oid *>(palloc(sizeof(Oid) * Max(list_length(sources), 1)));
	foreach (cell, sources)
	{
		SourceRow source;

		if (!find_source(lfirst_int(cell), &source))
			continue;
		definition->sources[definition->source_count] = source.relation;
		definition->logs[definition->source_count++] = source.log;
	}
	MemoryContextSwitchTo(caller);
}

Definition *
definition_of(int32 statistic)
{
	if (definitions == nullptr)
	{
		HASHCTL control = {};

		control.keysize = sizeof(int32);
		control.entrysize = sizeof(CachedDefinition);
		definitions = hash_create("cache_ext definitions", 16, &control, HASH_ELEM | HASH_BLOBS);
	}

	bool found;
	auto *entry =
	    static_cast<CachedDefinition *>(hash_search(definitions, &statistic, HASH_ENTER, &found));
	if (!found)
		entry->definition = nullptr;
	if (entry->definition != nullptr && entry->definition->valid)
		return entry->definition;
	discard(entry);

	StatisticRow row;
	if (!find_statistic(statistic, &row))
		return nullptr;

	Relation view = table_open(row.query, AccessShareLock);
	MemoryContext context =
	    AllocSetContextCreate(CurrentMemoryContext, "cache_ext definition", ALLOCSET_SMALL_SIZES);
	Definition *definition = analyze(get_view_query(view), context, false);

	definition->row = row;
	locate_tables(definition);
	table_close(view, AccessShareLock);
	MemoryContextSetParent(context, CacheMemoryContext);

	/* Building it may have processed invalidations that removed nothing of ours: look again. */
	entry =
	    static_cast<CachedDefinition *>(hash_search(definitions, &statistic, HASH_ENTER, &found));
	entry->definition = definition;
	return definition;
}

void
forget_definitions(Oid relation)
{
	if (definitions == nullptr)
		return;

	HASH_SEQ_STATUS status;
	hash_seq_init(&status, definitions);
	while (auto *entry = static_cast<CachedDefinition *>(hash_seq_search(&status)))
	{
		Definition *definition = entry->definition;

		if (definition != nullptr &&
		    (!OidIsValid(relation) || relation == definition->row.query ||
		     relation == definition->row.relation || relation == definition->row.state))
			definition->valid = false;
	}
}

} /* namespace cache_ext::statistics */
