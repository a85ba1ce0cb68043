/*-------------------------------------------------------------------------
 *
 * log.cpp
 *		Encoding, appending and decoding partial rows; see log.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/statistics/log.hpp"

extern "C" {
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tupmacs.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
}

namespace cache_ext::statistics {

/* A row of the log fills at most a page and is never toasted. */
constexpr size_t kRowBytes = 7500;

/* Below what a btree index accepts (a third of a page). */
constexpr int kMaxKeyBytes = 2600;

/* ---- keys ---- */

static void
append_varint(StringInfo out, uint64 value)
{
	enlargeStringInfo(out, kMaxVarint);
	char *end = put_varint(out->data + out->len, value);
	out->len = (int) (end - out->data);
	*end = '\0';
}

void
begin_key(StringInfo key, int32 statistic, int part)
{
	resetStringInfo(key);
	append_varint(key, (uint64) statistic);
	append_varint(key, (uint64) (part + 1));
}

void
begin_key_values(StringInfo key, int count, int *bitmap)
{
	*bitmap = key->len;
	for (int i = 0; i < (count + 7) / 8; ++i)
		appendStringInfoCharMacro(key, '\0');
}

void
add_key_value(StringInfo key, const KeyType &type, int bitmap, int number, Datum value, bool null)
{
	if (null)
	{
		key->data[bitmap + number / 8] |= (char) (1 << (number % 8));
		return;
	}
	if (type.by_value)
	{
		char raw[sizeof(Datum)];

		store_att_byval(raw, value, type.length);
		appendBinaryStringInfo(key, raw, type.length);
	}
	else if (type.length > 0)
		appendBinaryStringInfo(key, DatumGetPointer(value), type.length);
	else if (type.length == -1)
	{
		struct varlena *flat = PG_DETOAST_DATUM_PACKED(value);

		append_varint(key, VARSIZE_ANY_EXHDR(flat));
		appendBinaryStringInfo(key, VARDATA_ANY(flat), (int) VARSIZE_ANY_EXHDR(flat));
	}
	else
	{
		size_t size = strlen(DatumGetCString(value));

		append_varint(key, size);
		appendBinaryStringInfo(key, DatumGetCString(value), (int) size);
	}
}

void
check_key_size(StringInfo key, int32 statistic)
{
	if (likely(key->len <= kMaxKeyBytes))
		return;

	StatisticRow row;
	char *name = find_statistic(statistic, &row) ? get_rel_name(row.relation) : nullptr;
	ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
	                errmsg("value too long for statistic \"%s\"", name ? name : "?"),
	                errdetail("A group or counted value takes %d bytes, more than the %d that an "
	                          "index holds.",
	                          key->len, kMaxKeyBytes),
	                errhint("Let the statistic use md5() or left() of the value.")));
}

static Datum
decode_value(Decoder *decoder, const KeyType &type)
{
	if (type.by_value)
	{
		alignas(Datum) char raw[sizeof(Datum)];
		std::string_view bytes = decoder->bytes(type.length);

		memcpy(raw, bytes.data(), bytes.size());
		return fetch_att(raw, true, type.length);
	}
	if (type.length > 0)
	{
		std::string_view bytes = decoder->bytes(type.length);
		auto *copy = static_cast<char *>(palloc(bytes.size()));

		memcpy(copy, bytes.data(), bytes.size());
		return PointerGetDatum(copy);
	}

	std::string_view bytes = decoder->sized_bytes();
	if (type.length == -1)
		return PointerGetDatum(cstring_to_text_with_len(bytes.data(), (int) bytes.size()));
	return CStringGetDatum(pnstrdup(bytes.data(), bytes.size()));
}

void
decode_key(Decoder *decoder, const KeyType *types, int count, Datum *values, bool *nulls)
{
	std::string_view bitmap = decoder->bytes((count + 7) / 8);

	for (int i = 0; i < count; ++i)
	{
		nulls[i] = (bitmap[i / 8] & (1 << (i % 8))) != 0;
		values[i] = nulls[i] ? (Datum) 0 : decode_value(decoder, types[i]);
	}
}

/* ---- cells ---- */

static Datum
sum_datum(int64 sum)
{
	return sum == 0 ? NumericGetDatum(int64_to_numeric(0)) : (Datum) sum;
}

int64
add_sums(int64 left, int64 right)
{
	if (left == 0)
		return right;
	if (right == 0)
		return left;
	return (int64) DirectFunctionCall2(numeric_add, (Datum) left, (Datum) right);
}

int64
negate_sum(int64 sum)
{
	return sum == 0 ? 0 : (int64) DirectFunctionCall1(numeric_uminus, (Datum) sum);
}

bool
sum_is_zero(int64 sum)
{
	return sum == 0 || DatumGetBool(DirectFunctionCall2(numeric_eq, (Datum) sum, sum_datum(0)));
}

void
decode_cells(Decoder *decoder, const bool *is_sum, int count, int64 *cells)
{
	for (int i = 0; i < count; ++i)
	{
		if (!is_sum[i])
		{
			cells[i] += decoder->signed_varint();
			continue;
		}
		std::string_view bytes = decoder->sized_bytes();
		if (!bytes.empty())
			cells[i] = add_sums(cells[i], (int64) PointerGetDatum(cstring_to_text_with_len(
			                                  bytes.data(), (int) bytes.size())));
	}
}

/* ---- rows ---- */

const bool *
Shapes::of(int32 statistic, int part)
{
	if (statistic != statistic_)
	{
		statistic_ = statistic;
		definition_ = definition_of(statistic);
	}
	if (definition_ == nullptr)
		return nullptr;
	return part == kTotals ? definition_->cell_is_sum : definition_->parts[part].cell_is_sum;
}

bool
cells_are_zero(const int64 *cells, const bool *is_sum, int count)
{
	for (int i = 0; i < count; ++i)
		if (is_sum[i] ? !sum_is_zero(cells[i]) : cells[i] != 0)
			return false;
	return true;
}

static void
encode_entry(StringInfo out, StringInfo scratch, std::string_view key, const int64 *cells,
             size_t count, const bool *is_sum)
{
	resetStringInfo(scratch);
	appendBinaryStringInfo(scratch, key.data(), (int) key.size());
	for (size_t i = 0; i < count; ++i)
	{
		if (!is_sum[i])
			append_varint(scratch, zigzag(cells[i]));
		else if (sum_is_zero(cells[i]))
			append_varint(scratch, 0);
		else
		{
			auto *number = (struct varlena *) DatumGetPointer((Datum) cells[i]);

			append_varint(scratch, VARSIZE_ANY_EXHDR(number));
			appendBinaryStringInfo(scratch, VARDATA_ANY(number), (int) VARSIZE_ANY_EXHDR(number));
		}
	}
	append_varint(out, (uint64) scratch->len);
	appendBinaryStringInfo(out, scratch->data, scratch->len);
}

static void
insert_log_row(Relation log, StringInfo row, float us)
{
	Datum values[kLogColumns];
	bool nulls[kLogColumns] = {};

	SET_VARSIZE(row->data, row->len);
	values[kLogAt - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[kLogDelta - 1] = PointerGetDatum(row->data);
	values[kLogMicroseconds - 1] = Float4GetDatum(us);

	HeapTuple tuple = heap_form_tuple(RelationGetDescr(log), values, nulls);
	heap_insert(log, tuple, GetCurrentCommandId(true), 0, nullptr);
	heap_freetuple(tuple);
}

static void
begin_row(StringInfo row)
{
	resetStringInfo(row);
	appendStringInfoSpaces(row, VARHDRSZ);
}

bool
append_to_log(Oid log, Delta *delta, float us)
{
	if (delta->size() == 0)
		return false;

	StringInfoData row;
	StringInfoData scratch;
	Relation relation = nullptr;

	initStringInfo(&row);
	initStringInfo(&scratch);
	begin_row(&row);
	for_each_entry(delta, [&](int32, int, std::string_view key, const int64 *cells, size_t count,
	                          const bool *is_sum) {
		if (cells_are_zero(cells, is_sum, (int) count))
			return;
		if (relation == nullptr)
			relation = table_open(log, RowExclusiveLock);
		encode_entry(&row, &scratch, key, cells, count, is_sum);
		if ((size_t) row.len > kRowBytes - kMaxKeyBytes)
		{
			insert_log_row(relation, &row, us);
			us = 0;
			begin_row(&row);
		}
	});
	if (relation == nullptr)
		return false;
	if (row.len > VARHDRSZ)
		insert_log_row(relation, &row, us);
	table_close(relation, NoLock);
	pfree(row.data);
	pfree(scratch.data);
	return true;
}

} /* namespace cache_ext::statistics */
