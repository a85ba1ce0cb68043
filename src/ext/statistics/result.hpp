/*-------------------------------------------------------------------------
 *
 * result.hpp
 *		From cells and derived values to the value of an aggregate.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/definition.hpp"

namespace cache_ext::statistics {

/*
 * The value that the plain aggregate would have.  cells are those of the
 * statistic; derived values come as columns.  Raises 22003 where the plain
 * aggregate would overflow.
 */
Datum aggregate_value(const Aggregate &aggregate, const int64 *cells, const Datum *derived,
                      const bool *derived_null, bool *null);

/* A group as a row of now spells it, from what spelling_for() keeps. */
Datum spell_group(Oid type, Datum group, Datum spelling);

} /* namespace cache_ext::statistics */
