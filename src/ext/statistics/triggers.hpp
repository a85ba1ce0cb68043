/*-------------------------------------------------------------------------
 *
 * triggers.hpp
 *		The capture triggers of a table: made, mended, judged and dropped.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "ext/statistics/catalog.hpp"

namespace cache_ext::statistics {

/* Gives a member of a source what it lacks; a root before its partitions. */
void create_member_triggers(Oid member);

void drop_member_triggers(Oid member);

/*
 * Put triggers of a member right that fire in another mode than ours; ENABLE
 * TRIGGER ALL leaves them so.  Those that somebody disabled stay disabled
 * unless the caller insists.
 */
void mend_member_triggers(Oid member, bool disabled_too);

/* Does the relation carry a capture trigger, whoever made it? */
bool has_capture_trigger(Oid relation);

/*
 * Are the rows that triggers see without the column's value?  PostgreSQL gives
 * statement triggers a row as it was before it was sent to its partition, which
 * is where stored columns are generated; virtual ones are never in a row.
 */
bool is_hidden_from_triggers(Oid relation, AttrNumber column);

/*
 * Refuses a partition that generates what its parent has as a plain column,
 * which PostgreSQL 15 lets through: triggers would not see the value.
 */
void check_generated(Oid parent, Oid member);

/* Is it the name of one of ours? */
bool is_capture_trigger(const char *name);

/* What keeps changes to a source or one of its members from being counted; NULL when nothing. */
char *trigger_trouble(Oid source);

} /* namespace cache_ext::statistics */
