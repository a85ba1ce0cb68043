/*-------------------------------------------------------------------------
 *
 * extreme.hpp
 *		How changed values move a group's minimum or maximum.
 *
 * The fold and the reader know the extreme of a folded state and which values
 * a change brings or takes; mostly that tells the new one.  Only when the
 * extreme itself may have gone does somebody have to search.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/definition.hpp"

namespace cache_ext::statistics {

/* What a change does to a group's values, as far as one extreme is concerned. */
struct Extreme
{
	bool has_candidate;
	Datum candidate; /* the outermost value that has rows after the change */
	bool has_removed;
	Datum removed; /* the outermost value that lost its rows, or may have */
};

/* Is the candidate further out? */
bool is_better(AggregateKind kind, const Part &part, Datum candidate, Datum than);

/*
 * Notes that a value went from so many rows to so many.  The value must live
 * as long as the note, which is made in the context at first.
 */
void note_value(Extreme **note, AggregateKind kind, const Part &part, Datum value, int64 before,
                int64 after, MemoryContext context);

/* Moves an extreme by a change (nullptr: none); false when it has to be searched for. */
bool move_extreme(AggregateKind kind, const Part &part, const Extreme *change, Datum *value,
                  bool *null);

} /* namespace cache_ext::statistics */
