/*-------------------------------------------------------------------------
 *
 * aggregates.cpp
 *		From an aggregate call to the cells, parts and derived values that keep it.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/level.hpp"

extern "C" {
#include "catalog/pg_aggregate.h"
#include "catalog/pg_namespace.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/typcache.h"
}

namespace cache_ext::statistics {

int
cell_for(Level *level, CellRole role, Expr *argument, Expr *filter)
{
	Definition *d = level->definition;

	for (int i = 0; i < d->cell_count; ++i)
		if (d->cells[i].block == level->block && d->cells[i].role == role &&
		    equal(d->cells[i].argument, argument) && equal(d->cells[i].filter, filter))
			return i;

	Cell *cell = append(d->cells, d->cell_count);
	*cell = {role, level->block, argument, filter};
	return d->cell_count - 1;
}

static int
derived_for(Level *level, AggregateKind kind, Expr *value, Expr *filter)
{
	Definition *d = level->definition;
	int found = -1;

	if (d->blocks[level->block].exists_part >= 0)
		refuse("min, max or count(DISTINCT) together with EXISTS",
		       "Only counts and sums are kept by join key.",
		       "Keep the aggregate in a statistic without EXISTS.");

	for (int i = 0; i < d->part_count && found < 0; ++i)
		if (d->parts[i].kind == PartKind::kValues && d->parts[i].block == level->block &&
		    equal(d->parts[i].value, value) && equal(d->parts[i].filter, filter))
			found = i;

	if (found < 0)
	{
		Part *part = append(d->parts, d->part_count);

		part->kind = PartKind::kValues;
		part->block = level->block;
		part->value = value;
		part->filter = filter;
		part->key_count = d->group_count + 1;
		part->keys = static_cast<KeyType *>(palloc(sizeof(KeyType) * part->key_count));
		for (int i = 0; i < d->group_count; ++i)
			part->keys[i] = d->groups[i];
		part->keys[d->group_count] = key_of(value, "min, max or count(DISTINCT)");
		found = d->part_count - 1;
	}

	for (int i = 0; i < d->derived_count; ++i)
		if (d->derived[i].part == found && d->derived[i].kind == kind)
			return i;

	const KeyType &key = d->parts[found].keys[d->group_count];
	Derived *derived = append(d->derived, d->derived_count);
	derived->kind = kind;
	derived->part = found;
	derived->type = kind == AggregateKind::kCountDistinct ? INT8OID : key.type;
	derived->collation = kind == AggregateKind::kCountDistinct ? InvalidOid : key.collation;
	return d->derived_count - 1;
}

[[noreturn]] static void
refuse_aggregate(Oid function)
{
	ereport(ERROR,
	        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
	         errmsg("a statistic cannot contain the aggregate %s", format_procedure(function)),
	         errdetail("count, sum, avg, min, max and count(DISTINCT ...) are kept."),
	         errhint("%s", kUsePlainView)));
	pg_unreachable();
}

/* Sums are kept of numeric values, or of double precision ones in exact decimal form. */
static Expr *
summand(Expr *argument, Oid function, bool *is_float, bool *has_specials)
{
	Oid type = getBaseType(exprType((Node *) argument));
	Oid cast = InvalidOid;

	*is_float = type == FLOAT4OID || type == FLOAT8OID;
	*has_specials = *is_float || type == NUMERICOID;
	switch (type)
	{
	case INT2OID:
		cast = F_NUMERIC_INT2;
		break;
	case INT4OID:
		cast = F_NUMERIC_INT4;
		break;
	case INT8OID:
		cast = F_NUMERIC_INT8;
		break;
	case FLOAT4OID:
		return (Expr *) makeFuncExpr(F_FLOAT8_FLOAT4, FLOAT8OID, list_make1(argument), InvalidOid,
		                             InvalidOid, COERCE_EXPLICIT_CAST);
	case FLOAT8OID:
	case NUMERICOID:
		return argument;
	default:
		refuse_aggregate(function);
	}
	return (Expr *) makeFuncExpr(cast, NUMERICOID, list_make1(argument), InvalidOid, InvalidOid,
	                             COERCE_EXPLICIT_CAST);
}

static void
check_aggregate_class(Aggref *node)
{
	if (node->aggorder != NIL || node->aggkind != AGGKIND_NORMAL)
		refuse("an ordered aggregate", "The order of a group's rows is not kept.", kUsePlainView);
	if (get_func_namespace(node->aggfnoid) != PG_CATALOG_NAMESPACE)
		refuse_aggregate(node->aggfnoid);
	if (node->agglevelsup != 0)
		refuse("an aggregate of an outer query", "Each SELECT level keeps its own aggregates.",
		       kUsePlainView);
}

/* Is min or max of this aggregate the order of the type's btree operator class? */
static bool
follows_default_order(Aggref *node, const KeyType &key)
{
	HeapTuple tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(node->aggfnoid));

	if (!HeapTupleIsValid(tuple))
		return false;
	Oid sort_operator = reinterpret_cast<Form_pg_aggregate>(GETSTRUCT(tuple))->aggsortop;
	ReleaseSysCache(tuple);

	TypeCacheEntry *entry = lookup_type_cache(key.type, TYPECACHE_LT_OPR | TYPECACHE_GT_OPR);
	return sort_operator == entry->lt_opr || sort_operator == entry->gt_opr;
}

static void
build_aggregate(Level *level, Aggref *node, Aggregate *out)
{
	Index varno = level->varno;
	char *name = get_func_name(node->aggfnoid);
	Expr *filter =
	    node->aggfilter ? source_expr((Node *) node->aggfilter, varno, "FILTER") : nullptr;
	Expr *argument = nullptr;

	if (list_length(node->args) == 1)
		argument = source_expr((Node *) linitial_node(TargetEntry, node->args)->expr, varno,
		                       "an aggregate's argument");

	out->block = level->block;
	out->node = node;
	out->type = node->aggtype;
	out->count_cell = out->sum_cell = out->nan_cell = out->derived = -1;

	bool distinct = node->aggdistinct != NIL;
	if (strcmp(name, "min") == 0 || strcmp(name, "max") == 0)
	{
		out->kind = name[1] == 'i' ? AggregateKind::kMinimum : AggregateKind::kMaximum;
		out->derived = derived_for(level, out->kind, argument, filter);

		const Part &part = level->definition->parts[level->definition->derived[out->derived].part];
		if (!follows_default_order(node, part.keys[part.key_count - 1]))
			refuse_aggregate(node->aggfnoid);
	}
	else if (strcmp(name, "count") == 0 && distinct)
	{
		out->kind = AggregateKind::kCountDistinct;
		out->derived = derived_for(level, out->kind, argument, filter);
	}
	else if (distinct)
		refuse("DISTINCT in an aggregate other than count",
		       "min and max do not need it; distinct sums are not kept.", kUsePlainView);
	else if (strcmp(name, "count") == 0)
	{
		out->kind = AggregateKind::kCount;
		out->count_cell =
		    cell_for(level, node->aggstar ? CellRole::kRows : CellRole::kNonNull, argument, filter);
	}
	else if (strcmp(name, "sum") == 0 || strcmp(name, "avg") == 0)
	{
		out->kind = name[0] == 's' ? AggregateKind::kSum : AggregateKind::kAverage;

		Expr *value = summand(argument, node->aggfnoid, &out->is_float, &out->has_specials);
		out->count_cell = cell_for(level, CellRole::kNonNull, value, filter);
		out->sum_cell = cell_for(level, CellRole::kSum, value, filter);
		if (out->has_specials)
		{
			out->nan_cell = cell_for(level, CellRole::kNaN, value, filter);
			(void) cell_for(level, CellRole::kPositive, value, filter);
			(void) cell_for(level, CellRole::kNegative, value, filter);
		}
	}
	else
		refuse_aggregate(node->aggfnoid);
}

int
aggregate_for(Level *level, Aggref *node)
{
	Definition *d = level->definition;

	check_aggregate_class(node);
	for (int i = 0; i < d->aggregate_count; ++i)
		if (d->aggregates[i].block == level->block && equal(d->aggregates[i].node, node))
			return i;

	Aggregate built = {};
	build_aggregate(level, node, &built);
	*append(d->aggregates, d->aggregate_count) = built;
	return d->aggregate_count - 1;
}

} /* namespace cache_ext::statistics */
