/*-------------------------------------------------------------------------
 *
 * take_window.cpp
 *		Taking windows relative to now() apart; see window.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include <algorithm>

#include "ext/statistics/window.hpp"
#include "pg/tree.hpp"

extern "C" {
#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"
}

namespace cache_ext::statistics {

/* ---- conditions ---- */

[[noreturn]] static void
refuse_window(const char *construct, const char *detail)
{
	refuse(construct, detail,
	       "Keep a statistic grouped by date_trunc() of the column, and let a plain view choose "
	       "among its rows.");
}

static bool
is_moment(Oid type)
{
	return type == TIMESTAMPOID || type == TIMESTAMPTZOID || type == DATEOID;
}

static bool
add_longest_interval(Node *node, int64 *longest)
{
	if (node == nullptr)
		return false;
	if (IsA(node, Const) && ((Const *) node)->consttype == INTERVALOID &&
	    !((Const *) node)->constisnull)
	{
		Interval *interval = DatumGetIntervalP(((Const *) node)->constvalue);
		int64 days = (int64) interval->month * DAYS_PER_MONTH + interval->day;

		*longest = Max(*longest, days * USECS_PER_DAY + interval->time);
	}
	return pg::walk_children<int64>(node, add_longest_interval, longest);
}

/* About as many buckets in a window as there are rows in a small result. */
static int64
bucket_width(Oid type, Node *limit)
{
	constexpr int64 kFewBuckets = 10;
	int64 longest = 0;

	if (type == DATEOID)
		return 0;
	(void) add_longest_interval(limit, &longest);
	if (longest >= kFewBuckets * USECS_PER_DAY)
		return USECS_PER_DAY;
	if (longest == 0 || longest >= kFewBuckets * USECS_PER_HOUR)
		return USECS_PER_HOUR;
	return USECS_PER_MINUTE;
}

static void
add_condition(Window *window, Oid opno, Var *column, Expr *limit, bool is_lower)
{
	auto *condition = static_cast<WindowCondition *>(palloc(sizeof(WindowCondition)));
	Expr *op = make_opclause(opno, BOOLOID, false,
	                         (Expr *) makeVar(1, 1, column->vartype, -1, InvalidOid, 0), limit,
	                         InvalidOid, InvalidOid);

	set_opfuncid((OpExpr *) op);
	condition->op = (OpExpr *) op;
	condition->is_lower = is_lower;
	window->conditions = lappend(window->conditions, condition);
}

/* `column = limit` has two ends. */
static void
add_conditions(Window *window, Oid family, int strategy, Oid opno, Var *column, Expr *limit)
{
	Oid left;
	Oid right;

	if (strategy != BTEqualStrategyNumber)
	{
		add_condition(window, opno, column, limit,
		              strategy == BTGreaterEqualStrategyNumber ||
		                  strategy == BTGreaterStrategyNumber);
		return;
	}
	op_input_types(opno, &left, &right);
	for (int end : {BTGreaterEqualStrategyNumber, BTLessEqualStrategyNumber})
		add_condition(window, get_opfamily_member(family, left, right, (int16) end), column, limit,
		              end == BTGreaterEqualStrategyNumber);
}

bool
take_window_condition(const Level *level, Node *qual, Window **window)
{
	auto *op = (OpExpr *) qual;

	if (!IsA(qual, OpExpr) || list_length(op->args) != 2 || !contain_mutable_functions(qual) ||
	    contain_volatile_functions(qual) || contain_subplans(qual) || is_correlated(qual))
		return false;

	auto *first = (Node *) linitial(op->args);
	auto *second = (Node *) lsecond(op->args);
	bool reversed = !IsA(first, Var);
	Node *column_node = reversed ? second : first;
	Node *limit = reversed ? first : second;
	Oid opno = reversed ? get_commutator(op->opno) : op->opno;

	if (!IsA(column_node, Var) || contain_var_clause(limit) || !OidIsValid(opno) ||
	    !is_moment(((Var *) column_node)->vartype))
		return false;

	Oid family =
	    lookup_type_cache(((Var *) column_node)->vartype, TYPECACHE_BTREE_OPFAMILY)->btree_opf;
	int strategy = get_op_opfamily_strategy(opno, family);
	if (strategy == InvalidStrategy)
		return false;

	int side = side_of(level, column_node, "WHERE");
	Expr *column = side_expr(level, column_node, side, "WHERE");
	auto *var = (Var *) column;
	if (*window == nullptr)
	{
		*window = static_cast<Window *>(palloc0(sizeof(Window)));
		(*window)->side = side;
		(*window)->column = var->varattno;
		(*window)->type = var->vartype;
		(*window)->width = bucket_width(var->vartype, limit);
	}
	if ((*window)->side != side || (*window)->column != var->varattno)
		refuse_window("windows on several columns", "Rows are kept by buckets of one column.");
	if (var->vartype == TIMESTAMPOID && exprType(limit) == TIMESTAMPTZOID)
		(*window)->by_zone = true;
	add_conditions(*window, family, strategy, opno, var, (Expr *) limit);
	return true;
}

/* ---- the window of a block ---- */

static bool
has_index_on(Oid source, AttrNumber column)
{
	Relation table = table_open(source, AccessShareLock);
	bool found = false;
	ListCell *cell;

	foreach (cell, RelationGetIndexList(table))
	{
		Relation index = index_open(lfirst_oid(cell), AccessShareLock);

		found = found || (index->rd_rel->relam == BTREE_AM_OID && index->rd_index->indisvalid &&
		                  index->rd_index->indkey.values[0] == column &&
		                  RelationGetIndexPredicate(index) == NIL);
		index_close(index, NoLock);
	}
	table_close(table, NoLock);
	return found;
}

bool
has_window_index(const Block &block, const Window *window)
{
	return window->width == 0 || has_index_on(window_source(block, window), window->column);
}

static void
check_index(Oid source, AttrNumber column)
{
	char *table = quote_qualified_identifier(get_namespace_name(get_rel_namespace(source)),
	                                         get_rel_name(source));

	if (has_index_on(source, column))
		return;
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
	                errmsg("a statistic cannot contain a window on column \"%s\" without an index",
	                       get_attname(source, column, false)),
	                errdetail("The rows at the end of the window are read from the table."),
	                errhint("CREATE INDEX ON %s (%s)", table,
	                        quote_identifier(get_attname(source, column, false)))));
}

Oid
window_source(const Block &block, const Window *window)
{
	return block.side_count > 0 ? block.sides[window->side].source : block.source;
}

KeyType *
group_keys(const Definition *definition, const Window *window, int more, int *count)
{
	int leading = window == nullptr ? 0 : 1;

	*count = leading + definition->group_count + more;
	if (*count > INDEX_MAX_KEYS)
		refuse_many_keys();
	auto *keys = static_cast<KeyType *>(palloc0(sizeof(KeyType) * Max(*count, 1)));
	if (window != nullptr)
		keys[0] = key_type(window->type, InvalidOid, "a window");
	std::copy_n(definition->groups, definition->group_count, keys + leading);
	return keys;
}

Expr *
window_bucket(const Window *window)
{
	Expr *column = (Expr *) makeVar(1, window->column, window->type, -1, InvalidOid, 0);

	if (window->width == 0)
		return column;

	auto *stride = static_cast<Interval *>(palloc0(sizeof(Interval)));
	stride->time = window->width;
	bool zoned = window->type == TIMESTAMPTZOID;
	Expr *origin = (Expr *) makeConst(window->type, -1, InvalidOid, sizeof(Timestamp),
	                                  TimestampGetDatum(0), false, FLOAT8PASSBYVAL);
	return (Expr *) makeFuncExpr(zoned ? F_DATE_BIN_INTERVAL_TIMESTAMPTZ_TIMESTAMPTZ
	                                   : F_DATE_BIN_INTERVAL_TIMESTAMP_TIMESTAMP,
	                             window->type,
	                             list_make3(makeConst(INTERVALOID, -1, InvalidOid, sizeof(Interval),
	                                                  IntervalPGetDatum(stride), false, false),
	                                        column, origin),
	                             InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
}

void
finish_window(Level *level, Window *window)
{
	Definition *d = level->definition;
	Block *block = level->here();
	bool has_lower = false;
	ListCell *cell;

	foreach (cell, window->conditions)
		has_lower = has_lower || static_cast<WindowCondition *>(lfirst(cell))->is_lower;
	if (!has_lower)
		refuse_window("a window relative to now() without a beginning",
		              "It would grow with the table.");
	if (d->is_new && window->width > 0)
		check_index(window_source(*block, window), window->column);
	if (block->side_count > 0)
	{
		Side &side = block->sides[window->side];

		window->place = side_column(level, window->side, window_bucket(window));
		side.needed = bms_add_member(side.needed, window->place.number); /* NULL is in no window */
	}

	Part *part = append(d->parts, d->part_count);
	part->kind = PartKind::kBuckets;
	part->block = level->block;
	window->part = d->part_count - 1;
	block->window = window;
}

} /* namespace cache_ext::statistics */
