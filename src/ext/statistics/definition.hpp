/*-------------------------------------------------------------------------
 *
 * definition.hpp
 *		A statistic's query, taken apart into what is kept and how it is read.
 *
 * The query lives as a view (query_<id>), so renames follow and dropping or
 * retyping a used column is refused as for any view.  From its parse tree come:
 *
 *	blocks		one SELECT level each, over one source or several sides
 *	groups		the GROUP BY expressions (none: one row)
 *	cells		additive numbers: counts (int8) and exact sums (numeric)
 *	parts		keyed multisets: values of min, max and count(DISTINCT), join keys of EXISTS, sides
 *	derived		what the fold computes from parts and keeps in the totals row
 *	aggregates	how a result column of the query follows from cells and derived values
 *	output		the select list over a row of (groups, aggregates, time of last change)
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/catalog.hpp"

extern "C" {
#include "access/tupdesc.h"
#include "nodes/bitmapset.h"
#include "nodes/parsenodes.h"
#include "nodes/primnodes.h"
}

namespace cache_ext::statistics {

struct KeyType
{
	Oid type;
	Oid collation;
	int16 length;
	bool by_value;
	char alignment;
	Oid equality; /* operator */
	Oid equality_proc;
	Oid order_proc; /* btree support function 1 */
	Oid hash_proc;  /* InvalidOid: the type has none */
	bool equal_is_identical;
};

enum class CellRole : uint8
{
	kRows,     /* rows that pass WHERE and FILTER */
	kNonNull,  /* those whose argument is not NULL */
	kSum,      /* exact sum of the finite arguments */
	kSquares,  /* exact sum of their squares */
	kNaN,      /* arguments that are NaN */
	kPositive, /* that are +Infinity */
	kNegative  /* that are -Infinity */
};

/* Kept as numeric, not as a count? */
constexpr bool
is_sum(CellRole role)
{
	return role == CellRole::kSum || role == CellRole::kSquares;
}

/* A column or cell of a side's part. */
struct Place
{
	int side;
	int number;
};

struct Cell
{
	CellRole role;
	int block;
	Place place;    /* in a block with sides */
	Expr *argument; /* of kNonNull to kNegative; numeric or float8, or any type for kNonNull */
	Expr *filter;
};

enum class PartKind : uint8
{
	kValues,      /* (groups, value) -> n */
	kExists,      /* join key -> cells of the block, matching rows */
	kSide,        /* columns of a side -> rows, cells of the side */
	kBuckets,     /* bucket of time, groups -> cells of the block */
	kBucketValues /* bucket of time, groups, value -> n */
};

struct Part
{
	PartKind kind;
	int block;
	int side;    /* kSide */
	Expr *value; /* of a part with values */
	Expr *filter;
	Place place; /* of the value, in a block with sides */
	int key_count;
	KeyType *keys;
	FmgrInfo *order; /* compares two values */
	TupleDesc key_desc;
	int cell_count;
	bool *cell_is_sum;
	Oid table;     /* of an existing statistic */
	bool by_hash;  /* only whole keys are looked up: its index is of their hashes */
	bool by_index; /* no table: values are looked for in an index of the source */

	bool has_values() const { return kind == PartKind::kValues || kind == PartKind::kBucketValues; }
	const KeyType &value_key() const { return keys[key_count - 1]; }
};

enum class AggregateKind : uint8
{
	kCount,
	kSum,
	kAverage,
	kVariance, /* and its square root */
	kEvery,
	kSome,
	kMinimum,
	kMaximum,
	kDistinct
};

/* A value of the totals row that the fold computes from a part. */
struct Derived
{
	AggregateKind kind; /* kMinimum, kMaximum or kDistinct */
	CellRole role;      /* kDistinct: what of each value that has rows is added up */
	int part;
	Oid type;
	Oid collation;

	bool is_sum() const { return kind == AggregateKind::kDistinct && statistics::is_sum(role); }
};

struct Aggregate
{
	AggregateKind kind;
	int block;
	Oid type;      /* of the result */
	bool is_float; /* exact sum, correctly rounded at the end */
	bool has_specials;
	bool is_sample;      /* of kVariance */
	bool is_square_root; /* of kVariance */
	bool is_distinct;    /* cells are numbers of derived values */
	int count_cell;
	int deciding_cell; /* of kEvery and kSome: rows that are false, or true */
	int sum_cell;
	int squares_cell;
	int nan_cell; /* followed by +Infinity and -Infinity */
	int derived;
	int scale;         /* decimal places of every summand; not floating point */
	int scale_derived; /* or where the most of them is kept; -1: all the same */
	Aggref *node;
};

enum class SideRole : uint8
{
	kJoined,
	kExists,
	kNotExists
};

/*
 * One table of a block that joins tables or has conditions about several
 * others.  Sides form a tree: each but the first is tied to its parent by
 * equalities between columns of their parts.
 */
struct Side
{
	SideRole role;
	Oid source;
	List *where; /* over the side's row as range table entry 1 */
	int part;
	List *columns;         /* Expr of each column of the part; ties come first */
	Bitmapset *needed;     /* columns whose NULL keeps a row from meeting any other */
	Bitmapset *never_null; /* columns whose NULL would change what NOT IN means */
	int parent;            /* -1: the first */
	int tie_count;
	int *own_tie; /* columns of this part and of the parent's that must be equal */
	int *parent_tie;
};

struct Window; /* see window.hpp */

struct Block
{
	Window *window; /* nullptr: WHERE does not depend on now() */
	int side_count; /* 0: what follows describes the block */
	Side *sides;
	Oid source;
	List *where; /* implicit AND, over the source's row as range table entry 1 */
	int first_cell;
	int cell_count;
	int exists_part; /* -1: no EXISTS */
	bool anti;
	Expr *left_key;
	Oid right_source;
	List *right_where;
	Expr *right_key;
};

struct Definition
{
	/* Of an existing statistic: its relations, its sources and their logs. */
	StatisticRow row;
	Oid totals;
	int source_count;
	Oid *sources;
	Oid *logs;

	MemoryContext context;
	bool valid;
	bool is_new; /* being created */

	int group_count;
	List *group_exprs;
	KeyType *groups;
	Place *group_places; /* in a block with sides */
	int *group_spelling; /* derived value that says how a group is spelled now; -1: one way only */
	TupleDesc group_desc;

	int block_count;
	Block *blocks;
	int cell_count;
	Cell *cells;
	bool *cell_is_sum;
	int part_count;
	Part *parts;
	int derived_count;
	Derived *derived;
	int aggregate_count;
	Aggregate *aggregates;

	TupleDesc raw_desc; /* groups, aggregates, time of the last change */
	List *output;       /* Expr over raw_desc, one a result column */
	Expr *having;
	int *output_group;           /* which group a result column is, or -1 */
	bool *output_is_last_change; /* columns that no recomputation can reproduce */

	/* Column numbers in totals_<id>: groups, cells, derived values. */
	int totals_cell(int cell) const { return group_count + cell; }
	int totals_derived(int which) const { return group_count + cell_count + which; }
	int totals_columns() const { return group_count + cell_count + derived_count; }

	/* A grouped row exists while it has rows; its first cell counts them. */
	static constexpr int kGroupRows = 0;
};

/*
 * Takes a view's query apart; raises 0A000 for what cannot be kept exact.  For
 * a new statistic it also looks at the tables.  For an existing one it must
 * not: a fold that locked them could deadlock with whoever has them.
 */
Definition *analyze(Query *query, MemoryContext context, bool is_new);

/* The definition of an existing statistic, cached in this backend; nullptr when there is none. */
Definition *definition_of(int32 statistic);

/* Sources of all blocks, all sides, without duplicates, in OID order. */
List *source_relations(const Definition *definition);

KeyType key_type(Oid type, Oid collation, const char *what);

/* Equal values of the type have equal hashes, which are more than one. */
bool can_be_hashed(const KeyType &key);

/* For equal values the same, now and in later versions of the server, as in its hash indexes. */
uint32 hash_of_value(const KeyType &key, FmgrInfo *hash, Datum value);

void totals_name(int32 statistic, char (&out)[NAMEDATALEN]);
void part_name(int32 statistic, int part, char (&out)[NAMEDATALEN]);

/* Called by the relcache callback; InvalidOid means every relation. */
void forget_definitions(Oid relation);

} /* namespace cache_ext::statistics */
