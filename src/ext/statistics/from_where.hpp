/*-------------------------------------------------------------------------
 *
 * from_where.hpp
 *		What FROM and WHERE of a SELECT level consist of; shared by from_where.cpp
 *		and conditions.cpp.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/window.hpp"

namespace cache_ext::statistics {

/* DETAIL of what is refused between tables. */
constexpr const char *kEqualityOnly =
    "Tables are tied by equalities, each between an expression of one and an expression of "
    "another.";

/* Equalities between two tables, as expressions over a row of each. */
struct Tie
{
	List *outer;
	List *inner;
};

/* A condition about another table. */
struct Condition
{
	SideRole role;
	bool is_not_in;
	Oid source;
	List *where;
	int parent;
	Tie tie;
};

/* What FROM and WHERE consist of. */
struct Taken
{
	List *sources;    /* Oid of each table in FROM */
	List **where;     /* of each table */
	List *equalities; /* OpExpr between two tables of FROM */
	List *conditions; /* Condition * */
	Window *window;
};

/* As side_of(), but -1 for several tables. */
int find_side(const Level *level, Node *node);

/* Adds an equality; both of its sides become keys of one type. */
void add_equality(Tie *tie, const OpExpr *op, Expr *outer, Expr *inner);

/* [NOT] EXISTS or [NOT] IN, taken apart. */
Condition *take_condition(const Level *level, SubLink *link, bool anti);

/* NOT IN is NOT EXISTS where no NULL can come; a NULL would change what it means for every row. */
void check_not_in(const Taken *taken, const Condition *condition);

} /* namespace cache_ext::statistics */
