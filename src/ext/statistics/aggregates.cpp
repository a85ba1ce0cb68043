/*-------------------------------------------------------------------------
 *
 * aggregates.cpp
 *		From an aggregate call to the cells, parts and derived values that keep it.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/window.hpp"

extern "C" {
#include "catalog/pg_aggregate.h"
#include "catalog/pg_collation.h"
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
cell_for(Level *level, CellRole role, int side, Expr *argument, Expr *filter)
{
	Definition *d = level->definition;

	for (int i = 0; i < d->cell_count; ++i)
		if (d->cells[i].block == level->block && d->cells[i].role == role &&
		    d->cells[i].place.side == side && equal(d->cells[i].argument, argument) &&
		    equal(d->cells[i].filter, filter))
			return i;

	Cell *cell = append(d->cells, d->cell_count);
	*cell = {role, level->block, {side, 0}, argument, filter};
	return d->cell_count - 1;
}

/* NULL, which no part keeps, for rows that do not pass. */
static Expr *
value_of_rows(Expr *value, Expr *filter)
{
	CaseExpr *choice = makeNode(CaseExpr);
	CaseWhen *when = makeNode(CaseWhen);

	if (filter == nullptr)
		return value;
	when->expr = filter;
	when->result = value;
	choice->casetype = exprType((Node *) value);
	choice->casecollid = exprCollation((Node *) value);
	choice->args = list_make1(when);
	choice->defresult = (Expr *) makeNullConst(choice->casetype, -1, choice->casecollid);
	return (Expr *) choice;
}

static int
derived_for(Level *level, AggregateKind kind, CellRole role, int side, Expr *value, Expr *filter)
{
	Definition *d = level->definition;
	bool has_sides = level->here()->side_count > 0;
	int found = -1;

	if (has_sides)
	{
		value = value_of_rows(value, filter);
		filter = nullptr;
	}
	for (int i = 0; i < d->part_count && found < 0; ++i)
		if (d->parts[i].has_values() && d->parts[i].block == level->block &&
		    d->parts[i].place.side == side && equal(d->parts[i].value, value) &&
		    equal(d->parts[i].filter, filter))
			found = i;

	if (found < 0)
	{
		const Window *window = level->here()->window;
		Part *part = append(d->parts, d->part_count);

		part->kind = window == nullptr ? PartKind::kValues : PartKind::kBucketValues;
		part->block = level->block;
		part->value = value;
		part->filter = filter;
		part->place = has_sides ? side_column(level, side, value) : Place{side, 0};
		part->keys = group_keys(d, window, 1, &part->key_count);
		part->keys[part->key_count - 1] = key_of(value, "min, max or count(DISTINCT)");
		found = d->part_count - 1;
	}

	for (int i = 0; i < d->derived_count; ++i)
		if (d->derived[i].part == found && d->derived[i].kind == kind && d->derived[i].role == role)
			return i;

	const KeyType &key = d->parts[found].value_key();
	Derived *derived = append(d->derived, d->derived_count);
	derived->kind = kind;
	derived->role = role;
	derived->part = found;
	derived->type = key.type;
	derived->collation = key.collation;
	if (kind == AggregateKind::kDistinct)
	{
		derived->type = is_sum(role) ? NUMERICOID : INT8OID;
		derived->collation = InvalidOid;
	}
	return d->derived_count - 1;
}

[[noreturn]] static void
refuse_aggregate(Oid function)
{
	ereport(ERROR,
	        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
	         errmsg("a statistic cannot contain the aggregate %s", format_procedure(function)),
	         errdetail("count, sum, avg, min, max, bool_and, bool_or, variance and standard "
	                   "deviation of numbers are kept."),
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

static Expr *
scale_of(Expr *number)
{
	return (Expr *) makeFuncExpr(F_SCALE, INT4OID, list_make1(copyObjectImpl(number)), InvalidOid,
	                             InvalidOid, COERCE_EXPLICIT_CALL);
}

/*
 * How many decimal places the plain aggregate's sum has: as many as the
 * summand with the most.  An average's last digits depend on it.
 */
static void
find_scale(Level *level, int side, Expr *argument, Expr *filter, Aggregate *out)
{
	int32 typmod = exprTypmod((Node *) argument);
	Oid type = getBaseTypeAndTypmod(exprType((Node *) argument), &typmod);

	if (type != NUMERICOID)
		return;
	if (typmod >= (int32) VARHDRSZ)
	{
		out->scale = Max((((typmod - (int32) VARHDRSZ) & 0x7ff) ^ 1024) - 1024, 0);
		return;
	}
	out->scale_derived = derived_for(level, AggregateKind::kMaximum, CellRole::kNonNull, side,
	                                 scale_of(argument), filter);
}

int
spelling_for(Level *level, int side, Expr *group)
{
	int32 typmod = exprTypmod((Node *) group);
	Oid type = getBaseTypeAndTypmod(exprType((Node *) group), &typmod);
	Oid collation = exprCollation((Node *) group);

	if (type == NUMERICOID && typmod < (int32) VARHDRSZ)
		return derived_for(level, AggregateKind::kMaximum, CellRole::kNonNull, side,
		                   scale_of(group), nullptr);
	if (!OidIsValid(collation) || get_collation_isdeterministic(collation))
		return -1;

	CollateExpr *bytes = makeNode(CollateExpr);
	bytes->arg = group;
	bytes->collOid = C_COLLATION_OID;
	return derived_for(level, AggregateKind::kMinimum, CellRole::kNonNull, side, (Expr *) bytes,
	                   nullptr);
}

/* A cell of the block, or the same added up over distinct values. */
static int
state_for(Level *level, const Aggregate &aggregate, CellRole role, int side, Expr *argument,
          Expr *filter)
{
	if (aggregate.is_distinct)
		return derived_for(level, AggregateKind::kDistinct, role, side, argument, filter);
	return cell_for(level, role, side, argument, filter);
}

static void
keep_sum(Level *level, Aggref *node, int side, Expr *argument, Expr *filter, Aggregate *out)
{
	Expr *value = summand(argument, node->aggfnoid, &out->is_float, &out->has_specials);

	if (out->is_distinct)
		value = argument; /* kept as it is, as for count(DISTINCT) */
	out->count_cell = state_for(level, *out, CellRole::kNonNull, side, value, filter);
	out->sum_cell = state_for(level, *out, CellRole::kSum, side, value, filter);
	if (out->kind == AggregateKind::kVariance)
		out->squares_cell = state_for(level, *out, CellRole::kSquares, side, value, filter);
	if (out->has_specials)
	{
		out->nan_cell = state_for(level, *out, CellRole::kNaN, side, value, filter);
		(void) state_for(level, *out, CellRole::kPositive, side, value, filter);
		(void) state_for(level, *out, CellRole::kNegative, side, value, filter);
	}
	find_scale(level, side, argument, filter, out);
}

/* Rows whose argument decides: one false makes bool_and false, one true makes bool_or true. */
static Expr *
deciding_rows(AggregateKind kind, Expr *argument, Expr *filter)
{
	Expr *decides =
	    kind == AggregateKind::kEvery ? makeBoolExpr(NOT_EXPR, list_make1(argument), -1) : argument;

	if (filter == nullptr)
		return decides;
	return makeBoolExpr(AND_EXPR, list_make2(filter, decides), -1);
}

static void
keep_extreme(Level *level, Aggref *node, int side, Expr *argument, Expr *filter, Aggregate *out)
{
	out->derived = derived_for(level, out->kind, CellRole::kNonNull, side, argument, filter);

	const Part &part = level->definition->parts[level->definition->derived[out->derived].part];
	const KeyType &value = part.value_key();
	if (!follows_default_order(node, value))
		refuse_aggregate(node->aggfnoid);
	if (OidIsValid(value.collation) && !get_collation_isdeterministic(value.collation))
		refuse("min or max with a nondeterministic collation",
		       "Which of several equal spellings it shows would depend on the order of changes.",
		       "Add COLLATE with a deterministic collation.");
}

struct KnownAggregate
{
	const char *name;
	AggregateKind kind;
	bool is_sample;
	bool is_square_root;
};

constexpr KnownAggregate kKnown[] = {
    {"count", AggregateKind::kCount, false, false},
    {"sum", AggregateKind::kSum, false, false},
    {"avg", AggregateKind::kAverage, false, false},
    {"min", AggregateKind::kMinimum, false, false},
    {"max", AggregateKind::kMaximum, false, false},
    {"bool_and", AggregateKind::kEvery, false, false},
    {"every", AggregateKind::kEvery, false, false},
    {"bool_or", AggregateKind::kSome, false, false},
    {"variance", AggregateKind::kVariance, true, false},
    {"var_samp", AggregateKind::kVariance, true, false},
    {"var_pop", AggregateKind::kVariance, false, false},
    {"stddev", AggregateKind::kVariance, true, true},
    {"stddev_samp", AggregateKind::kVariance, true, true},
    {"stddev_pop", AggregateKind::kVariance, false, true},
};

static const KnownAggregate &
known_aggregate(Oid function)
{
	char *name = get_func_name(function);

	for (const KnownAggregate &known : kKnown)
		if (strcmp(known.name, name) == 0)
			return known;
	refuse_aggregate(function);
}

static void
build_aggregate(Level *level, Aggref *node, Aggregate *out)
{
	const KnownAggregate &known = known_aggregate(node->aggfnoid);
	Node *argument_node = nullptr;

	if (list_length(node->args) == 1)
		argument_node = (Node *) linitial_node(TargetEntry, node->args)->expr;
	int side = side_of(level, (Node *) list_make2(argument_node, node->aggfilter),
	                   "an aggregate's argument and FILTER");
	Expr *argument = side_expr(level, argument_node, side, "an aggregate's argument");
	Expr *filter = side_expr(level, (Node *) node->aggfilter, side, "FILTER");

	out->kind = known.kind;
	out->is_sample = known.is_sample;
	out->is_square_root = known.is_square_root;
	out->block = level->block;
	out->node = node;
	out->type = node->aggtype;
	out->scale_derived = -1;

	/* DISTINCT changes neither extremes nor whether all or some are true. */
	bool is_distinct = node->aggdistinct != NIL;
	switch (out->kind)
	{
	case AggregateKind::kMinimum:
	case AggregateKind::kMaximum:
		keep_extreme(level, node, side, argument, filter, out);
		break;
	case AggregateKind::kEvery:
	case AggregateKind::kSome:
		out->count_cell = cell_for(level, CellRole::kNonNull, side, argument, filter);
		out->deciding_cell = cell_for(level, CellRole::kRows, side, nullptr,
		                              deciding_rows(out->kind, argument, filter));
		break;
	case AggregateKind::kCount:
		out->is_distinct = is_distinct;
		out->count_cell =
		    state_for(level, *out, node->aggstar ? CellRole::kRows : CellRole::kNonNull, side,
		              argument, filter);
		break;
	default:
		out->is_distinct = is_distinct;
		keep_sum(level, node, side, argument, filter, out);
	}
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
