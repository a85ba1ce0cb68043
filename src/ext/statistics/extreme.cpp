/*-------------------------------------------------------------------------
 *
 * extreme.cpp
 *		Moving minimum and maximum; see extreme.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/extreme.hpp"

namespace cache_ext::statistics {

bool
is_better(AggregateKind kind, const Part &part, Datum candidate, Datum than)
{
	int order =
	    DatumGetInt32(FunctionCall2Coll(part.order, part.value_key().collation, candidate, than));

	return kind == AggregateKind::kMaximum ? order > 0 : order < 0;
}

void
note_value(Extreme **note, AggregateKind kind, const Part &part, Datum value, int64 before,
           int64 after, MemoryContext context)
{
	if (*note == nullptr)
		*note = static_cast<Extreme *>(MemoryContextAllocZero(context, sizeof(Extreme)));

	Extreme *extreme = *note;
	if (after > 0)
	{
		if (!extreme->has_candidate || is_better(kind, part, value, extreme->candidate))
			extreme->candidate = value;
		extreme->has_candidate = true;
	}
	else if (before > 0)
	{
		if (!extreme->has_removed || is_better(kind, part, value, extreme->removed))
			extreme->removed = value;
		extreme->has_removed = true;
	}
}

bool
move_extreme(AggregateKind kind, const Part &part, const Extreme *change, Datum *value, bool *null)
{
	if (change == nullptr)
		return true;

	/* A value further out than all that were removed makes up for them. */
	bool stays = !change->has_removed || (!*null && is_better(kind, part, *value, change->removed));
	bool replaced = change->has_removed && change->has_candidate && !*null &&
	                is_better(kind, part, change->candidate, change->removed);

	if (!stays && !replaced)
		return false;
	if (change->has_candidate && (*null || is_better(kind, part, change->candidate, *value)))
	{
		*value = change->candidate;
		*null = false;
	}
	return true;
}

} /* namespace cache_ext::statistics */
