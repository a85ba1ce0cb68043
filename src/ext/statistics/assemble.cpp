/*-------------------------------------------------------------------------
 *
 * assemble.cpp
 *		What follows from all levels of a query that has been taken apart: the
 *		keys and cells of parts, the row that results are computed from.
 *
 *-------------------------------------------------------------------------
 */
#include <algorithm>

#include "ext/statistics/window.hpp"
#include "pg/tree.hpp"

extern "C" {
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
}

namespace cache_ext::statistics {

static TupleDesc
describe_keys(const KeyType *keys, int count)
{
	TupleDesc desc = CreateTemplateTupleDesc(count);

	for (int i = 0; i < count; ++i)
	{
		TupleDescInitEntry(desc, (AttrNumber) (i + 1), psprintf("k%d", i + 1), keys[i].type, -1, 0);
		TupleDescInitEntryCollation(desc, (AttrNumber) (i + 1), keys[i].collation);
	}
	return desc;
}

/* Where the time of the last change stands in the raw row, and whether an expression asks for it.
 */
struct LastChange
{
	AttrNumber column;
	bool met;
};

static bool
place_last_change(Node *node, LastChange *last_change)
{
	if (node == nullptr)
		return false;
	if (IsA(node, Var))
	{
		auto *var = (Var *) node;

		if (var->varattno == kLastChange)
		{
			var->varattno = last_change->column;
			last_change->met = true;
		}
		return false;
	}
	return pg::walk_children<LastChange>(node, place_last_change, last_change);
}

/* The columns of a side's part, and its cells: rows first, then those of the block over this side.
 */
static void
finish_side(Definition *d, Part *part, const Side &side)
{
	const Block &block = d->blocks[part->block];
	ListCell *column;
	int number = 0;

	part->key_count = list_length(side.columns);
	part->keys = static_cast<KeyType *>(palloc(sizeof(KeyType) * Max(part->key_count, 1)));
	foreach (column, side.columns)
		part->keys[number++] = key_of((Expr *) lfirst(column), "a column of several tables' rows");

	part->cell_count = 1;
	for (int i = 0; i < block.cell_count; ++i)
	{
		Cell &cell = d->cells[block.first_cell + i];

		if (cell.place.side != part->side)
			continue;
		bool is_rows = cell.role == CellRole::kRows && cell.filter == nullptr;
		cell.place.number = is_rows ? 0 : part->cell_count++;
	}
}

static void
finish_buckets(const Definition *d, Part *part)
{
	const Block &block = d->blocks[part->block];

	part->keys = group_keys(d, block.window, 0, &part->key_count);
	part->cell_count = block.cell_count;
}

/* Is it only ever asked for a whole key, and can that be hashed? */
static bool
serves_whole_keys(const Definition *d, int number)
{
	const Part &part = d->parts[number];
	auto searches = [&](const Derived &derived) {
		return derived.part == number && derived.kind != AggregateKind::kDistinct;
	};

	return (part.kind == PartKind::kExists || part.kind == PartKind::kValues) &&
	       std::none_of(d->derived, d->derived + d->derived_count, searches) &&
	       std::all_of(part.keys, part.keys + part.key_count, can_be_hashed);
}

static void
finish_parts(Definition *d)
{
	d->cell_is_sum = static_cast<bool *>(palloc0(Max(d->cell_count, 1)));
	for (int i = 0; i < d->cell_count; ++i)
		d->cell_is_sum[i] = is_sum(d->cells[i].role);
	for (int i = 0; i < d->part_count; ++i)
	{
		Part &part = d->parts[i];
		const Block &block = d->blocks[part.block];

		if (part.kind == PartKind::kSide)
			finish_side(d, &part, block.sides[part.side]);
		else if (part.kind == PartKind::kBuckets)
			finish_buckets(d, &part);
		else
			part.cell_count = part.kind == PartKind::kExists ? block.cell_count + 1 : 1;
		part.cell_is_sum = static_cast<bool *>(palloc0(part.cell_count));
		for (int c = 0; !part.has_values() && c < block.cell_count; ++c)
		{
			const Cell &cell = d->cells[block.first_cell + c];

			if (part.kind != PartKind::kSide)
				part.cell_is_sum[c] = is_sum(cell.role);
			else if (cell.place.side == part.side && cell.place.number > 0)
				part.cell_is_sum[cell.place.number] = is_sum(cell.role);
		}
		part.key_desc = describe_keys(part.keys, part.key_count);
		part.by_hash = serves_whole_keys(d, i);
		if (part.has_values())
		{
			part.order = static_cast<FmgrInfo *>(palloc0(sizeof(FmgrInfo)));
			fmgr_info(part.value_key().order_proc, part.order);
		}
	}
}

static void
finish_output(Definition *d)
{
	int columns = d->group_count + d->aggregate_count + 1;

	d->raw_desc = CreateTemplateTupleDesc(columns);
	for (int i = 0; i < d->group_count; ++i)
	{
		auto *expr = (Node *) list_nth(d->group_exprs, i);

		TupleDescInitEntry(d->raw_desc, (AttrNumber) (i + 1), psprintf("g%d", i + 1),
		                   exprType(expr), exprTypmod(expr), 0);
		TupleDescInitEntryCollation(d->raw_desc, (AttrNumber) (i + 1), exprCollation(expr));
	}
	for (int i = 0; i < d->aggregate_count; ++i)
	{
		auto number = (AttrNumber) (d->group_count + i + 1);

		TupleDescInitEntry(d->raw_desc, number, psprintf("a%d", i + 1), d->aggregates[i].type, -1,
		                   0);
		TupleDescInitEntryCollation(d->raw_desc, number, d->aggregates[i].node->aggcollid);
	}
	TupleDescInitEntry(d->raw_desc, (AttrNumber) columns, "last_change", TIMESTAMPTZOID, -1, 0);

	int outputs = list_length(d->output);
	d->output_group = static_cast<int *>(palloc(sizeof(int) * outputs));
	d->output_is_last_change = static_cast<bool *>(palloc0(sizeof(bool) * outputs));
	for (int i = 0; i < outputs; ++i)
	{
		auto *expr = (Node *) list_nth(d->output, i);
		LastChange last_change = {(AttrNumber) columns, false};

		(void) place_last_change(expr, &last_change);
		d->output_is_last_change[i] = last_change.met;

		bool is_group = IsA(expr, Var) && ((Var *) expr)->varattno <= d->group_count;
		d->output_group[i] = is_group ? ((Var *) expr)->varattno - 1 : -1;
	}
	LastChange last_change = {(AttrNumber) columns, false};
	(void) place_last_change((Node *) d->having, &last_change);
}

void
assemble(Definition *definition)
{
	definition->group_desc = describe_keys(definition->groups, definition->group_count);
	finish_parts(definition);
	finish_output(definition);
}

} /* namespace cache_ext::statistics */
