/*-------------------------------------------------------------------------
 *
 * catalog.hpp
 *		The tables that say which statistics exist and what they look at.
 *
 * All reads use a fresh catalog snapshot, not the transaction's: a definition
 * that was committed before this backend locked the source counts, however
 * old the transaction's snapshot is.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "pg/server.hpp"

extern "C" {
#include "nodes/pg_list.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"
#include "utils/timestamp.h"
}

namespace cache_ext::statistics {

struct StatisticRow
{
	int32 id;
	Oid relation; /* what users read */
	Oid query;    /* the view that holds the defining query */
	Oid state;    /* the foreign table that answers */
};

struct SourceRow
{
	int32 id;
	Oid relation;
	Oid log;
};

struct ProgressRow
{
	bool visible;            /* false: this snapshot is older than the statistic's filling */
	TimestampTz last_change; /* DT_NOBEGIN when none */
	TimestampTz last_fold;
	int64 folded;
	double us; /* what the folded partial rows have cost their writers */
};

constexpr const char *kInternalSchema = "cache_ext_internal";

/* OID of a relation in the internal schema; raises when missing_ok is false and there is none. */
Oid internal_relation(const char *name, bool missing_ok = false);

void log_name(int32 source, char (&out)[NAMEDATALEN]);

/* The owner of the extension's internals. */
Oid internal_owner();

bool find_statistic(int32 id, StatisticRow *row);
bool find_statistic_by_relation(Oid relation, StatisticRow *row); /* relation, query or state */
bool find_source(int32 id, SourceRow *row);
bool find_source_by_relation(Oid relation, SourceRow *row);

List *all_statistics();                      /* of StatisticRow * */
List *all_sources();                         /* of SourceRow * */
List *statistics_of_source(int32 source);    /* of int */
List *sources_of_statistic(int32 statistic); /* of int */
List *leaves_of_source(int32 source);        /* of Oid */
bool find_leaf(Oid relation, int32 *source);

void insert_statistic(const StatisticRow &row);
void insert_source(const SourceRow &row);
void insert_statistic_source(int32 source, int32 statistic);
void insert_leaf(Oid relation, int32 source);
void delete_leaf(Oid relation);
void delete_statistic(int32 id); /* with its statistic_source and progress rows */
void delete_source(int32 id);    /* with its leaves */

int32 next_number(const char *sequence);

/* progress, in the given snapshot */
ProgressRow read_progress(int32 statistic, Snapshot snapshot);
void delete_progress(int32 statistic);
void write_progress(int32 statistic, TimestampTz last_change, int64 folded, double us);

} /* namespace cache_ext::statistics */
