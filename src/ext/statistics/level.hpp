/*-------------------------------------------------------------------------
 *
 * level.hpp
 *		One SELECT level while a query is taken apart; shared by analyze.cpp and
 *		aggregates.cpp.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/definition.hpp"

namespace cache_ext::statistics {

struct Level
{
	Definition *definition;
	Query *query;
	int block;   /* -1 at the top of a row of scalar subqueries */
	Index varno; /* range table index of the source */
	bool grouped;
};

constexpr const char *kUsePlainView =
    "Use a plain view over the statistic, or a plain view for the whole query.";

/* Raises 0A000: a statistic cannot contain the construct. */
[[noreturn]] void refuse(const char *construct, const char *detail, const char *hint);

/*
 * An expression over a source row, made independent of its query: the source
 * becomes range table entry 1.  Only what follows from the row alone may stay.
 */
Expr *source_expr(Node *node, Index varno, const char *what);

KeyType key_of(Expr *expr, const char *what);

/* The cell that counts or sums this, new or there already. */
int cell_for(Level *level, CellRole role, Expr *argument, Expr *filter);

/* The aggregate of this level that equals the node, new or there already. */
int aggregate_for(Level *level, Aggref *node);

/* A growing array in the current memory context. */
template <typename T>
T *
append(T *&array, int &count)
{
	if (array == nullptr)
		array = static_cast<T *>(palloc0(sizeof(T)));
	else
		array = static_cast<T *>(repalloc(array, sizeof(T) * (count + 1)));
	array[count] = T{};
	return &array[count++];
}

} /* namespace cache_ext::statistics */
