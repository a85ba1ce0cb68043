/*-------------------------------------------------------------------------
 *
 * pending.cpp
 *		Adding up partial rows; see pending.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/pending.hpp"
#include "pg/memory.hpp"

extern "C" {
#include "access/table.h"
#include "access/tableam.h"
#include "utils/datum.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
}

namespace cache_ext::statistics {

Pending *
make_pending(Definition *definition, MemoryContext context)
{
	MemoryContext caller = MemoryContextSwitchTo(context);
	auto *pending = static_cast<Pending *>(palloc0(sizeof(Pending)));

	pending->definition = definition;
	pending->context = context;
	pending->last_change = DT_NOBEGIN;
	pending->totals =
	    make_key_table(definition->groups, definition->group_count, definition->group_desc,
	                   definition->cell_count + definition->derived_count, context);
	pending->parts =
	    static_cast<KeyTable **>(palloc(sizeof(KeyTable *) * Max(definition->part_count, 1)));
	for (int i = 0; i < definition->part_count; ++i)
	{
		const Part &part = definition->parts[i];

		pending->parts[i] =
		    make_key_table(part.keys, part.key_count, part.key_desc, part.cell_count, context);
	}
	MemoryContextSwitchTo(caller);
	return pending;
}

/* The cells of the key that comes next in the decoder, and which of them are sums. */
static int64 *
cells_of(Pending *pending, int part, Decoder *decoder, const bool **is_sum, int *count)
{
	Definition *d = pending->definition;

	*is_sum = part == kTotals ? d->cell_is_sum : d->parts[part].cell_is_sum;
	*count = part == kTotals ? d->cell_count : d->parts[part].cell_count;
	return encoded_key_cells(part == kTotals ? pending->totals : pending->parts[part], decoder);
}

void
add_entry(Pending *pending, int part, Decoder *decoder)
{
	MemoryContext caller = MemoryContextSwitchTo(pending->context);
	const bool *is_sum;
	int count;
	int64 *cells = cells_of(pending, part, decoder, &is_sum, &count);

	decode_cells(decoder, is_sum, count, cells);
	MemoryContextSwitchTo(caller);
}

void
add_delta(Pending *pending, Delta *delta)
{
	MemoryContext caller = MemoryContextSwitchTo(pending->context);

	delta->for_each([&](std::string_view key, const int64 *change, size_t, const bool *) {
		Decoder decoder(key.data(), key.size());
		const bool *is_sum;
		int count;

		(void) decoder.varint(); /* the statistic */
		auto part = (int) decoder.varint() - 1;
		int64 *cells = cells_of(pending, part, &decoder, &is_sum, &count);
		for (int i = 0; i < count; ++i)
			cells[i] = is_sum[i] ? add_sums(cells[i], change[i]) : cells[i] + change[i];
	});
	MemoryContextSwitchTo(caller);
}

void
add_log_row(Pending *pending, std::string_view delta, TimestampTz at)
{
	Decoder entries(delta.data(), delta.size());
	bool concerned = false;

	while (!entries.done())
	{
		std::string_view bytes = entries.sized_bytes();
		Decoder entry(bytes.data(), bytes.size());

		if (entry.varint() != (uint64) pending->definition->row.id)
			continue;
		auto part = (int) entry.varint() - 1;
		add_entry(pending, part, &entry);
		concerned = true;
	}
	if (concerned)
	{
		++pending->rows;
		pending->last_change = Max(pending->last_change, at);
	}
}

void
add_log(Pending *pending, Oid log, Snapshot snapshot)
{
	Relation relation = table_open(log, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(relation, nullptr);
	TableScanDesc scan = table_beginscan(relation, snapshot, 0, nullptr);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		add_log_row(pending, pg::view(DatumGetPointer(slot->tts_values[kLogDelta - 1])),
		            DatumGetTimestampTz(slot->tts_values[kLogAt - 1]));
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(relation, AccessShareLock);
}

} /* namespace cache_ext::statistics */
