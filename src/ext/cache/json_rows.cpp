/*-------------------------------------------------------------------------
 *
 * json_rows.cpp
 *		Rows from the executor into JSON text; see json_rows.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/cache/json_rows.hpp"

extern "C" {
#include "access/htup_details.h"
#include "executor/tuptable.h"
#include "funcapi.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
}

namespace cache_ext::cache {

static void
start_rows(DestReceiver *self, int, TupleDesc type)
{
	auto *receiver = reinterpret_cast<JsonReceiver *>(self);

	/* Own descriptor: a scan's slot may carry the table's column names instead of the query's. */
	receiver->row_type = BlessTupleDesc(CreateTupleDescCopy(type));
	receiver->rows = 0;
	if (!receiver->as_text_rows)
		return;
	appendStringInfoChar(receiver->json, '[');
	for (int i = 0; i < type->natts; ++i)
	{
		if (i > 0)
			appendStringInfoChar(receiver->json, ',');
		escape_json(receiver->json, NameStr(TupleDescAttr(type, i)->attname));
	}
	appendStringInfoChar(receiver->json, ']');
}

/* The columns as their types write them, so that any type can read them back. */
static void
append_texts(JsonReceiver *receiver, TupleTableSlot *slot)
{
	StringInfo json = receiver->json;

	appendStringInfoString(json, ",[");
	for (int i = 0; i < receiver->row_type->natts; ++i)
	{
		Oid function;
		bool varlena;

		if (i > 0)
			appendStringInfoChar(json, ',');
		if (slot->tts_isnull[i])
		{
			appendStringInfoString(json, "null");
			continue;
		}
		getTypeOutputInfo(TupleDescAttr(receiver->row_type, i)->atttypid, &function, &varlena);
		escape_json(json, OidOutputFunctionCall(function, slot->tts_values[i]));
	}
	appendStringInfoChar(json, ']');
}

static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	auto *receiver = reinterpret_cast<JsonReceiver *>(self);
	MemoryContext before = MemoryContextSwitchTo(receiver->row_context);

	slot_getallattrs(slot);

	if (receiver->as_text_rows)
		append_texts(receiver, slot);
	else
	{
		HeapTuple row = heap_form_tuple(receiver->row_type, slot->tts_values, slot->tts_isnull);
		Datum json = DirectFunctionCall1(row_to_json, HeapTupleGetDatum(row));
		text *object = DatumGetTextPP(json);

		if (receiver->rows > 0)
			appendStringInfoChar(receiver->json, ',');
		appendBinaryStringInfo(receiver->json, VARDATA_ANY(object), VARSIZE_ANY_EXHDR(object));
	}
	if (receiver->most_rows > 0 && receiver->rows >= receiver->most_rows)
		ereport(ERROR,
		        (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
		         errmsg("query gives more than " UINT64_FORMAT " rows", receiver->most_rows)));
	++receiver->rows;
	MemoryContextSwitchTo(before);
	MemoryContextReset(receiver->row_context);
	return true;
}

static void
end_rows(DestReceiver *)
{
}

void
prepare_receiver(JsonReceiver *receiver, const QueryCall &call, StringInfo json)
{
	memset(receiver, 0, sizeof(*receiver));
	receiver->base.receiveSlot = receive_row;
	receiver->base.rStartup = start_rows;
	receiver->base.rShutdown = end_rows;
	receiver->base.rDestroy = end_rows;
	receiver->base.mydest = DestNone;
	receiver->json = json;
	receiver->as_text_rows = call.as_text_rows;
	receiver->most_rows = call.most_rows;
	receiver->row_context = AllocSetContextCreate(CurrentMemoryContext, "cache_ext row as JSON",
	                                              ALLOCSET_DEFAULT_SIZES);
}

} /* namespace cache_ext::cache */
