/*-------------------------------------------------------------------------
 *
 * log.hpp
 *		Partial rows: how a statement's delta becomes rows of a source's log.
 *
 * A log is a heap without index (at timestamptz, delta bytea).  A delta is a
 * sequence of entries
 *
 *		size | statistic | part | key | cells
 *
 * where part 0 is the totals row, key has a bitmap of NULLs before its
 * values, and size counts what follows it, so that the entries of a dropped
 * statistic can be passed over.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "core/statistics/delta.hpp"
#include "core/statistics/encoding.hpp"
#include "ext/statistics/definition.hpp"

extern "C" {
#include "lib/stringinfo.h"
}

namespace cache_ext::statistics {

/* Where an entry belongs: the totals row of a statistic, or one of its parts. */
constexpr int kTotals = -1;

/* Columns of a log. */
constexpr int kLogAt = 1;
constexpr int kLogDelta = 2;
constexpr int kLogMicroseconds = 3;
constexpr int kLogColumns = 3;

void begin_key(StringInfo key, int32 statistic, int part);

/*
 * Appends one key value.  The bitmap of NULLs is reserved by begin_key_values
 * for the number of values that follow.
 */
void begin_key_values(StringInfo key, int count, int *bitmap);
void add_key_value(StringInfo key, const KeyType &type, int bitmap, int number, Datum value,
                   bool null);

/* Raises 54000 when a key is too long for the index that will hold it. */
void check_key_size(StringInfo key, int32 statistic);

/*
 * Append the delta to the log as one row, or as several of about a page.
 * Entries that cancel out are left out.  Returns whether anything was left.
 * The row is made in a buffer of the caller's, which keeps its memory.
 */
bool append_to_log(Oid log, Delta *delta, StringInfo row, float us);

/* Reads the values of a key; by-reference values are copied into the current context. */
void decode_key(Decoder *decoder, const KeyType *types, int count, Datum *values, bool *nulls);

/* Passes over a key; its bytes. */
std::string_view skip_key(Decoder *decoder, const KeyType *types, int count);

/* Adds the encoded cells; sums are Numeric pointers (0 is zero) in the current context. */
void decode_cells(Decoder *decoder, const bool *is_sum, int count, int64 *cells);

/* Without is_sum none of them is a sum. */
bool cells_are_zero(const int64 *cells, const bool *is_sum, int count);

/* Arithmetic on sum cells. */
int64 add_sums(int64 left, int64 right);
int64 negate_sum(int64 sum);
bool sum_is_zero(int64 sum);

} /* namespace cache_ext::statistics */
