/*-------------------------------------------------------------------------
 *
 * level.hpp
 *		One SELECT level while a query is taken apart; shared by analyze.cpp,
 *		from_where.cpp, conditions.cpp, aggregates.cpp, refuse.cpp and assemble.cpp.
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
	int block;    /* -1 at the top of a row of scalar subqueries */
	List *tables; /* range table indexes of the tables in FROM, a side each if there are sides */
	bool grouped;

	Block *here() const { return &definition->blocks[block]; }
};

constexpr const char *kUsePlainView =
    "Use a plain view over the statistic, or a plain view for the whole query.";

/* Raises 0A000: a statistic cannot contain the construct. */
[[noreturn]] void refuse(const char *construct, const char *detail, const char *hint);

/* More keys than an index has. */
[[noreturn]] void refuse_many_keys();

/*
 * An expression over a source row, made independent of its query: the source
 * becomes range table entry 1.  Only what follows from the row alone may stay.
 */
Expr *source_expr(Node *node, Index varno, const char *what);

KeyType key_of(Expr *expr, const char *what);

/* Raises 0A000 for the subquery that the node contains. */
[[noreturn]] void refuse_subquery(Node *node, const char *what);

/* Everything that no level may have. */
void refuse_clauses(Query *query);

/* The column of the time of the last change, until the number of aggregates is known. */
constexpr int kLastChange = -1;

/* Completes a definition whose levels have all been taken apart. */
void assemble(Definition *definition);

/* Does the node use columns of the next outer level? */
bool is_correlated(Node *node);

/* The table behind a range table entry, checked. */
Oid source_table(const Definition *definition, Query *query, Index varno);

/* Which table of the level, numbered as in FROM, an expression looks at; constants take the first.
 */
int side_of(const Level *level, Node *node, const char *what);

/* An expression over that table's row. */
Expr *side_expr(const Level *level, Node *node, int side, const char *what);

/* FROM and WHERE: the source of the block or its sides, and the conditions. */
void take_from_and_where(Level *level);

/* The column of a side's part that keeps the expression, new or there already. */
Place side_column(Level *level, int side, Expr *expr);

/* The cell that counts or sums this, new or there already. */
int cell_for(Level *level, CellRole role, int side, Expr *argument, Expr *filter);

/*
 * Equal values of a group may be spelled differently.  Keeps what tells a
 * spelling that some row has; -1 when there is only one.
 */
int spelling_for(Level *level, int side, Expr *group);

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
