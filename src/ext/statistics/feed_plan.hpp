/*-------------------------------------------------------------------------
 *
 * feed_plan.hpp
 *		What a row counts for, compiled: written by feed_compile.cpp, run by feed.cpp.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/definition.hpp"

extern "C" {
#include "nodes/execnodes.h"
}

namespace cache_ext::statistics {

struct CellFeed
{
	CellRole role;
	bool is_float;
	bool same_argument; /* as the cell before */
	ExprState *argument;
	ExprState *filter;
};

struct ValueFeed
{
	int part;
	KeyType type;
	ExprState *value;
	ExprState *filter;
};

/* One side of one block. */
struct Feed
{
	int32 statistic;
	char *name; /* for error contexts */
	ExprState *where;
	int side_part; /* -1: not a side; else its columns are what follows */
	const Bitmapset *needed;
	const Bitmapset *never_null;
	bool is_right; /* the side that EXISTS looks for */

	int cells_part; /* kTotals, or the buckets of a window, the first of the groups then */
	int group_count;
	KeyType *group_types;
	ExprState **groups;

	int cell_count; /* of this block */
	CellFeed *cells;
	int first_cell;
	int cells_of_key; /* in the row of totals or of the part */

	/* Which cells of a key are sums, by where it belongs; nullptr: none. */
	const bool *cells_sums;
	const bool *exists_sums;
	const bool *side_sums;

	int exists_part; /* -1: the block has no EXISTS */
	bool anti;
	KeyType join_type;
	ExprState *join_key;

	int value_count;
	ValueFeed *values;
};

} /* namespace cache_ext::statistics */
