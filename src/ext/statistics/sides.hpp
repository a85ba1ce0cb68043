/*-------------------------------------------------------------------------
 *
 * sides.hpp
 *		Blocks with several tables: what a change to one side makes of the others.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/pending.hpp"

namespace cache_ext::statistics {

/*
 * Enter into the pending totals, and into pending parts with values, what the
 * pending rows of all sides change.  For a reader, who sees parts and pending
 * rows in one snapshot.
 */
void read_sides(Pending *pending, Snapshot snapshot);

/* The same for a fold, which also adds the pending rows to the sides' parts. */
void fold_sides(Pending *pending);

/*
 * Enter into `rows` what its entries of one side make with the other sides as
 * the snapshot has them.
 */
void combine_rows(Pending *pending, Pending *rows, const Block &block, int side, Snapshot snapshot);

/* The indexes by which sides find one another, beyond the unique ones of their parts. */
void create_side_indexes(const Definition *definition, int32 statistic);

} /* namespace cache_ext::statistics */
