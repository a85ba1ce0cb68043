/*-------------------------------------------------------------------------
 *
 * feed.cpp
 *		Evaluating what a row counts for; see feed.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include <algorithm>

#include "ext/statistics/feed.hpp"
#include "ext/statistics/feed_plan.hpp"
#include "ext/statistics/log.hpp"
#include "ext/statistics/summand.hpp"

extern "C" {
#include "executor/executor.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
}

namespace cache_ext::statistics {

static bool
passes(ExprState *condition, ExprContext *econtext)
{
	bool null;

	if (condition == nullptr)
		return true;
	Datum value = ExecEvalExprSwitchContext(condition, econtext, &null);
	return !null && DatumGetBool(value);
}

/* Adds a finite value to a sum that lives in the current context, freeing what it replaces. */
static void
add_to_sum(const CellFeed &cell, int64 *sum, Datum value, int sign)
{
	int64 summand = exact_numeric(cell.is_float, value);

	if (cell.role == CellRole::kSquares)
	{
		int64 square = square_of(summand);

		pfree(DatumGetPointer((Datum) summand));
		summand = square;
	}

	int64 change = sign > 0 ? summand : negate_sum(summand);
	int64 before = *sum;

	*sum = add_sums(before, change);
	if (change != summand)
		pfree(DatumGetPointer((Datum) summand));
	if (before != 0)
	{
		pfree(DatumGetPointer((Datum) before));
		pfree(DatumGetPointer((Datum) change));
	}
}

/* What a value that is not NULL adds to a cell. */
static void
feed_summand(const CellFeed &cell, int64 *out, Datum value, int sign)
{
	Summand kind = classify(cell.is_float, value);

	switch (cell.role)
	{
	case CellRole::kNaN:
		*out += kind == Summand::kNaN ? sign : 0;
		break;
	case CellRole::kPositive:
		*out += kind == Summand::kPositive ? sign : 0;
		break;
	case CellRole::kNegative:
		*out += kind == Summand::kNegative ? sign : 0;
		break;
	default:
		if (kind == Summand::kFinite)
			add_to_sum(cell, out, value, sign);
	}
}

static void
feed_cells(const Feed *feed, ExprContext *econtext, int64 *cells, int sign)
{
	Datum value = 0;
	bool null = true;
	bool passed = true;

	for (int i = 0; i < feed->cell_count; ++i)
	{
		const CellFeed &cell = feed->cells[i];

		if (!cell.same_argument)
		{
			passed = passes(cell.filter, econtext);
			if (passed && cell.argument != nullptr)
				value = ExecEvalExprSwitchContext(cell.argument, econtext, &null);
		}
		if (!passed)
			continue;
		if (cell.role == CellRole::kRows)
			cells[i] += sign;
		else if (cell.role == CellRole::kNonNull)
			cells[i] += null ? 0 : sign;
		else if (!null)
			feed_summand(cell, &cells[i], value, sign);
	}
}

static std::string_view
key_bytes(Capture *capture, const Feed *feed)
{
	check_key_size(&capture->key, feed->statistic);
	return {capture->key.data, (size_t) capture->key.len};
}

static int64 *
join_cells(Capture *capture, const Feed *feed, Delta *delta, Datum key)
{
	int bitmap;

	begin_key(&capture->key, feed->statistic, feed->exists_part);
	begin_key_values(&capture->key, 1, &bitmap);
	add_key_value(&capture->key, feed->join_type, bitmap, 0, key, false);
	return delta->cells(key_bytes(capture, feed), (size_t) feed->cell_count + 1, feed->exists_sums);
}

struct GroupValues
{
	Datum values[INDEX_MAX_KEYS];
	bool nulls[INDEX_MAX_KEYS];
};

static void
add_groups(Capture *capture, const Feed *feed, int bitmap, const GroupValues &groups)
{
	for (int i = 0; i < feed->group_count; ++i)
		add_key_value(&capture->key, feed->group_types[i], bitmap, i, groups.values[i],
		              groups.nulls[i]);
}

static int64 *
totals_cells(Capture *capture, const Feed *feed, Delta *delta, const GroupValues &groups)
{
	int bitmap;

	begin_key(&capture->key, feed->statistic, feed->cells_part);
	begin_key_values(&capture->key, feed->group_count, &bitmap);
	add_groups(capture, feed, bitmap, groups);
	return delta->cells(key_bytes(capture, feed), (size_t) feed->cells_of_key, feed->cells_sums) +
	       feed->first_cell;
}

static void
feed_values(Capture *capture, const Feed *feed, Delta *delta, const GroupValues &groups, int sign)
{
	for (int i = 0; i < feed->value_count; ++i)
	{
		const ValueFeed &part = feed->values[i];
		bool null;
		int bitmap;

		if (!passes(part.filter, capture->econtext))
			continue;
		Datum value = ExecEvalExprSwitchContext(part.value, capture->econtext, &null);
		if (null)
			continue;
		begin_key(&capture->key, feed->statistic, part.part);
		begin_key_values(&capture->key, feed->group_count + 1, &bitmap);
		add_groups(capture, feed, bitmap, groups);
		add_key_value(&capture->key, part.type, bitmap, feed->group_count, value, false);
		*delta->cells(key_bytes(capture, feed), 1, nullptr) += sign;
	}
}

/* NOT IN was accepted because its columns were NOT NULL; see from_where.cpp. */
[[noreturn]] static void
report_null_in_not_in()
{
	ereport(ERROR, (errcode(ERRCODE_NOT_NULL_VIOLATION),
	                errmsg("a statistic with NOT IN cannot take a null value"),
	                errdetail("Its columns were NOT NULL when it was created."),
	                errhint("Drop the statistic, and create it with NOT EXISTS.")));
	pg_unreachable();
}

/* A row of one of several tables: an entry of the side, with its rows and cells. */
static void
feed_side(Capture *capture, const Feed *feed, Delta *delta, int sign)
{
	GroupValues columns;
	int bitmap;

	for (int i = 0; i < feed->group_count; ++i)
	{
		columns.values[i] =
		    ExecEvalExprSwitchContext(feed->groups[i], capture->econtext, &columns.nulls[i]);
		if (columns.nulls[i] && bms_is_member(i, feed->never_null))
			report_null_in_not_in();
		if (columns.nulls[i] && bms_is_member(i, feed->needed))
			return; /* NULL equals nothing: the row meets no other */
	}
	begin_key(&capture->key, feed->statistic, feed->side_part);
	begin_key_values(&capture->key, feed->group_count, &bitmap);
	add_groups(capture, feed, bitmap, columns);

	int64 *cells =
	    delta->cells(key_bytes(capture, feed), (size_t) feed->cell_count + 1, feed->side_sums);
	cells[0] += sign;
	feed_cells(feed, capture->econtext, cells + 1, sign);
}

static void
feed_one(Capture *capture, const Feed *feed, Delta *delta, int sign)
{
	ExprContext *econtext = capture->econtext;
	GroupValues groups;
	bool null;

	if (feed->where != nullptr && !ExecQual(feed->where, econtext))
		return;

	if (feed->side_part >= 0)
	{
		feed_side(capture, feed, delta, sign);
		return;
	}
	if (feed->is_right)
	{
		Datum key = ExecEvalExprSwitchContext(feed->join_key, econtext, &null);

		if (!null)
			join_cells(capture, feed, delta, key)[feed->cell_count] += sign;
		return;
	}

	for (int i = 0; i < feed->group_count; ++i)
		groups.values[i] = ExecEvalExprSwitchContext(feed->groups[i], econtext, &groups.nulls[i]);

	if (feed->cells_part != kTotals && groups.nulls[0])
		return; /* NULL is in no window */
	if (feed->exists_part >= 0)
	{
		Datum key = ExecEvalExprSwitchContext(feed->join_key, econtext, &null);

		if (!null)
		{
			feed_cells(feed, econtext, join_cells(capture, feed, delta, key), sign);
			return;
		}
		if (!feed->anti)
			return; /* NULL equals nothing, so nothing exists for it */
	}
	if (feed->cell_count > 0)
		feed_cells(feed, econtext, totals_cells(capture, feed, delta, groups), sign);
	feed_values(capture, feed, delta, groups, sign);
}

static void
name_statistic(void *feed)
{
	errcontext("statistic \"%s\"", static_cast<const Feed *>(feed)->name);
}

void
feed_row(Capture *capture, Delta *delta, TupleTableSlot *row, int sign)
{
	ErrorContextCallback context = {error_context_stack, name_statistic, nullptr};

	error_context_stack = &context;
	capture->econtext->ecxt_scantuple = row;
	for (int i = 0; i < capture->feed_count; ++i)
	{
		context.arg = &capture->feeds[i];
		feed_one(capture, &capture->feeds[i], delta, sign);
	}
	error_context_stack = context.previous;
	ResetExprContext(capture->econtext);
}

static bool
used_columns_equal(const Capture *capture, TupleTableSlot *old_row, TupleTableSlot *new_row)
{
	for (int i = 0; i < capture->used_count; ++i)
	{
		AttrNumber column = capture->used[i];
		bool old_null;
		bool new_null;
		Datum old_value = slot_getattr(old_row, column, &old_null);
		Datum new_value = slot_getattr(new_row, column, &new_null);
		auto *attribute = TupleDescAttr(old_row->tts_tupleDescriptor, column - 1);

		if (old_null != new_null)
			return false;
		if (!old_null &&
		    !datum_image_eq(old_value, new_value, attribute->attbyval, attribute->attlen))
			return false;
	}
	return true;
}

void
feed_change(Capture *capture, Delta *delta, TupleTableSlot *old_row, TupleTableSlot *new_row)
{
	bool counts = capture->feed_count > 0;

	if (counts && old_row != nullptr && new_row != nullptr &&
	    used_columns_equal(capture, old_row, new_row))
		counts = false;
	if (counts && old_row != nullptr)
		feed_row(capture, delta, old_row, -1);
	if (counts && new_row != nullptr)
		feed_row(capture, delta, new_row, 1);
	if (capture->watches != nullptr)
		invalidation::watch_row(capture->watches, old_row, new_row);
}

bool
delta_is_zero(Delta *delta)
{
	bool zero = true;

	delta->for_each([&](std::string_view, const int64 *cells, size_t count, const bool *is_sum) {
		zero = zero && cells_are_zero(cells, is_sum, (int) count);
	});
	return zero;
}

} /* namespace cache_ext::statistics */
