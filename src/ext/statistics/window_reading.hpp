/*-------------------------------------------------------------------------
 *
 * window_reading.hpp
 *		A window while it is read; shared by window.cpp and window_rows.cpp.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/read.hpp"
#include "ext/statistics/store.hpp"
#include "ext/statistics/window.hpp"

namespace cache_ext::statistics {

enum class Position
{
	kInside,
	kCut,
	kBefore,
	kAfter
};

struct ConditionState
{
	ExprState *holds;
	bool is_lower;
};

struct WindowReading
{
	Pending *pending;
	Definition *definition;
	const Block *block;
	const Window *window;
	Snapshot snapshot;
	const GroupFilter *filter;
	Store *totals;
	ExprContext *econtext;
	TupleTableSlot *moment;
	int condition_count;
	ConditionState *conditions;
	Datum last_bucket; /* the one asked about last */
	Position last_position;
	bool has_last;
	int cut_count; /* of the buckets asked about */
	Datum *cut;
};

/* Where a bucket lies. */
Position position_of(WindowReading *w, Datum bucket);

/* Is a moment in the window? */
bool is_inside(WindowReading *w, Datum moment);

/* What the rows of cut buckets that are in the window count for. */
Pending *rows_of_cut_buckets(WindowReading *w);

} /* namespace cache_ext::statistics */
