/*-------------------------------------------------------------------------
 *
 * window.hpp
 *		Conditions relative to now(): buckets of time, and the ends of the window.
 *
 * A block whose WHERE compares a column with something like now() - interval
 * '24 hours' keeps its cells in a part by bucket of that column.  A reader adds
 * up the buckets that lie within the window, and reads the rows of those that
 * an end of the window cuts from the table itself, by its index.  Values of min,
 * max and DISTINCT have parts by bucket, too; rows of joins are in the bucket of
 * the table that has the column.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/level.hpp"
#include "ext/statistics/pending.hpp"

namespace cache_ext::statistics {

struct GroupFilter; /* see read.hpp */
struct Store;

/* A condition of the window, as an operator over (moment, moment of now). */
struct WindowCondition
{
	OpExpr *op; /* the column, as column 1 of a row of one, compared with a stable expression */
	bool is_lower;
};

struct Window
{
	int side;          /* of a block with sides: the table that has the column */
	AttrNumber column; /* of the source */
	Oid type;          /* timestamp, timestamptz or date */
	int64 width;       /* of a bucket, in microseconds; 0: a value each */
	bool by_zone;      /* local times compared with instants: not monotone where clocks change */
	List *conditions;  /* WindowCondition * */
	int part;
	Place place; /* of the bucket, in a block with sides */
};

/* Is the condition one of a window?  Adds it to the window, which it makes if there is none. */
bool take_window_condition(const Level *level, Node *qual, Window **window);

/* Checks the window of a block that has been taken apart, and gives it its part. */
void finish_window(Level *level, Window *window);

/* The table that has the column. */
Oid window_source(const Block &block, const Window *window);

/* Does the source still have the index that the ends of the window are read by? */
bool has_window_index(const Block &block, const Window *window);

/*
 * Keys of a block's rows: of a window (or nullptr) the bucket, then the groups,
 * then room for more.
 */
KeyType *group_keys(const Definition *definition, const Window *window, int more, int *count);

/* The bucket of a row. */
Expr *window_bucket(const Window *window);

/* Enter into the pending totals of the wanted groups what the windows of a statistic hold now. */
void read_windows(Pending *pending, Snapshot snapshot, const GroupFilter *filter, Store *totals);

} /* namespace cache_ext::statistics */
