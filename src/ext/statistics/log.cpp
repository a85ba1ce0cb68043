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

/* What fits a page beside the row's header and its other columns. */
constexpr int kMostRowBytes = 8000;

/* Below what a btree index accepts (a third of a page). */
constexpr int kMaxKeyBytes = 2600;

/* ---- keys ---- */

/* Where the next so many bytes go. */
static char *
room_for(StringInfo out, size_t size)
{
	if (unlikely((size_t) (out->maxlen - out->len) <= size))
		enlargeStringInfo(out, (int) size);
	return out->data + out->len;
}

static void
append_bytes(StringInfo out, const void *bytes, size_t size)
{
	memcpy(room_for(out, size), bytes, size);
	out->len += (int) size;
}

static void
append_varint(StringInfo out, uint64 value)
{
	char *at = room_for(out, kMaxVarint);

	out->len += (int) (put_varint(at, value) - at);
}

static void
append_sized(StringInfo out, const void *bytes, size_t size)
{
	append_varint(out, size);
	append_bytes(out, bytes, size);
}

void
begin_key(StringInfo key, int32 statistic, int part)
{
	key->len = 0;
	append_varint(key, (uint64) statistic);
	append_varint(key, (uint64) (part + 1));
}

void
begin_key_values(StringInfo key, int count, int *bitmap)
{
	size_t size = (size_t) (count + 7) / 8;

	*bitmap = key->len;
	memset(room_for(key, size), 0, size);
	key->len += (int) size;
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
		alignas(Datum) char raw[sizeof(Datum)];

		store_att_byval(raw, value, type.length);
		append_bytes(key, raw, (size_t) type.length);
	}
	else if (type.length > 0)
		append_bytes(key, DatumGetPointer(value), (size_t) type.length);
	else if (type.length == -1)
	{
		struct varlena *flat = PG_DETOAST_DATUM_PACKED(value);

		append_sized(key, VARDATA_ANY(flat), VARSIZE_ANY_EXHDR(flat));
	}
	else
		append_sized(key, DatumGetCString(value), strlen(DatumGetCString(value)));
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

std::string_view
skip_key(Decoder *decoder, const KeyType *types, int count)
{
	const char *begin = decoder->position();
	std::string_view bitmap = decoder->bytes((count + 7) / 8);

	for (int i = 0; i < count; ++i)
	{
		if ((bitmap[i / 8] & (1 << (i % 8))) != 0)
			continue;
		if (types[i].by_value || types[i].length > 0)
			(void) decoder->bytes(types[i].length);
		else
			(void) decoder->sized_bytes();
	}
	return {begin, (size_t) (decoder->position() - begin)};
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

bool
cells_are_zero(const int64 *cells, const bool *is_sum, int count)
{
	for (int i = 0; i < count; ++i)
		if (is_sum != nullptr && is_sum[i] ? !sum_is_zero(cells[i]) : cells[i] != 0)
			return false;
	return true;
}

static void
append_cell(StringInfo out, int64 cell, bool is_sum)
{
	if (!is_sum)
		append_varint(out, zigzag(cell));
	else if (sum_is_zero(cell))
		append_varint(out, 0);
	else
	{
		auto *number = (struct varlena *) DatumGetPointer((Datum) cell);

		append_sized(out, VARDATA_ANY(number), VARSIZE_ANY_EXHDR(number));
	}
}

/* The entry is written behind a size of one byte, and moved where the size turns out to need more.
 */
static void
append_entry(StringInfo out, std::string_view key, const int64 *cells, size_t count,
             const bool *is_sum)
{
	char size_bytes[kMaxVarint];
	int begin = out->len;

	(void) room_for(out, 1);
	out->len += 1;
	append_bytes(out, key.data(), key.size());
	for (size_t i = 0; i < count; ++i)
		append_cell(out, cells[i], is_sum != nullptr && is_sum[i]);

	auto size = (size_t) (out->len - begin - 1);
	auto width = (size_t) (put_varint(size_bytes, size) - size_bytes);
	if (width > 1)
	{
		(void) room_for(out, width);
		memmove(out->data + begin + width, out->data + begin + 1, size);
		out->len += (int) width - 1;
	}
	memcpy(out->data + begin, size_bytes, width);
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
	row->len = VARHDRSZ;
}

/*
 * The entry that begins here has made the row too long: what is before it goes
 * ahead.  Alone it has to fit.
 */
static void
give_own_row(Relation log, StringInfo row, int begin, std::string_view key, float *us)
{
	int size = row->len - begin;

	if (VARHDRSZ + size > kMostRowBytes)
	{
		Decoder decoder(key.data(), key.size());
		StatisticRow statistic;
		bool known = find_statistic((int32) decoder.varint(), &statistic);
		char *name = known ? get_rel_name(statistic.relation) : nullptr;

		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
		                errmsg("change of a group too large for statistic \"%s\"",
		                       name != nullptr ? name : "?"),
		                errdetail("The group's values and sums take %d bytes, more than the %d "
		                          "that fit a page.",
		                          size, kMostRowBytes - VARHDRSZ),
		                errhint("Keep some of the sums in another statistic, or sum numbers of "
		                        "fewer digits.")));
	}
	if (begin == VARHDRSZ)
		return;

	char *entry = static_cast<char *>(palloc(size));

	memcpy(entry, row->data + begin, size);
	row->len = begin;
	insert_log_row(log, row, *us);
	*us = 0;
	begin_row(row);
	append_bytes(row, entry, size);
	pfree(entry);
}

bool
append_to_log(Oid log, Delta *delta, StringInfo row, float us)
{
	Relation relation = nullptr;

	begin_row(row);
	delta->for_each(
	    [&](std::string_view key, const int64 *cells, size_t count, const bool *is_sum) {
		    if (cells_are_zero(cells, is_sum, (int) count))
			    return;
		    if (relation == nullptr)
			    relation = table_open(log, RowExclusiveLock);
		    int begin = row->len;
		    append_entry(row, key, cells, count, is_sum);
		    if (unlikely(row->len > (int) kRowBytes))
			    give_own_row(relation, row, begin, key, &us);
		    if ((size_t) row->len > kRowBytes - kMaxKeyBytes)
		    {
			    insert_log_row(relation, row, us);
			    us = 0;
			    begin_row(row);
		    }
	    });
	if (relation == nullptr)
		return false;
	if (row->len > VARHDRSZ)
		insert_log_row(relation, row, us);
	table_close(relation, NoLock);
	return true;
}

} /* namespace cache_ext::statistics */
