/*-------------------------------------------------------------------------
 *
 * watch.cpp
 *		Compiled watches: from a changed row to items in the journal.
 *
 * Targets are parsed once, when a backend first writes the relation.  A target
 * without placeholders is collected once and then costs a comparison of two
 * numbers a row.
 *
 * A transaction that changes very many rows would collect an item a row.  Beyond
 * a limit a watch collects what its targets widen to instead (placeholders
 * become asterisks), so that the journal stays bounded and nothing is forgotten.
 * The same happens with TRUNCATE, with commands that change or drop the table or
 * a column of it, and with a target whose column has been renamed or dropped
 * since the watch was declared.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/watch.hpp"

#include <string>

#include "core/invalidation/event.hpp"
#include "core/invalidation/glob.hpp"
#include "core/invalidation/target.hpp"
#include "ext/invalidation/fence.hpp"
#include "ext/invalidation/journal.hpp"
#include "ext/invalidation/value_text.hpp"
#include "ext/invalidation/watch_rows.hpp"
#include "pg/guard.hpp"
#include "pg/redis_link.hpp"

extern "C" {
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
}

namespace cache_ext::invalidation {

/* Items of one watch in one transaction before it widens. */
constexpr int kItemsOfWatch = 10000;

namespace {

struct CompiledPart
{
	TargetPart::Kind kind;
	std::string_view text; /* of a literal */
	AttrNumber column;
	bool has_substitute;
	std::string_view substitute;
	ValueText value;
};

/* Text with placeholders: a name or a message. */
struct CompiledText
{
	CompiledPart *parts;
	int count;
	bool varies;  /* has placeholders */
	bool either;  /* is filled from the old row and again from the new one */
	bool unknown; /* names a column that is not there */
	std::string_view literal;
};

struct CompiledTarget
{
	ItemKind kind;
	CompiledText name;
	std::string_view widened; /* of kind widened_kind */
	ItemKind widened_kind;
	uint64 collected; /* journal generation in which the literal or widened form was */
};

struct CompiledWatch
{
	CompiledTarget *targets;
	int target_count;
	CompiledText message;
	std::string_view default_message;
	uint64 repeat_ms; /* 0: no repetition */
	bool filtered;
	AttrNumber *columns;
	int column_count;
	uint64 transaction; /* that items counts for */
	int items;
};

} /* namespace */

struct RelationWatches
{
	CompiledWatch *watches;
	int count;
	StringInfoData name; /* where names are put together, kept from row to row */
	StringInfoData message;
};

namespace {

std::string_view
keep(MemoryContext context, const std::string &text)
{
	char *copy =
	    pg::call([&] { return static_cast<char *>(MemoryContextAlloc(context, text.size() + 1)); });

	memcpy(copy, text.data(), text.size());
	copy[text.size()] = '\0';
	return {copy, text.size()};
}

AttrNumber
find_column(TupleDesc desc, const char *name)
{
	for (int i = 0; i < desc->natts; ++i)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (!attribute->attisdropped && strcmp(NameStr(attribute->attname), name) == 0)
			return attribute->attnum;
	}
	return InvalidAttrNumber;
}

CompiledText
compile_text(const Target &target, TupleDesc desc, MemoryContext context)
{
	CompiledText text = {};

	text.literal = keep(context, target.literal());
	text.varies = target.has_placeholders();
	text.parts = pg::call([&] {
		return static_cast<CompiledPart *>(MemoryContextAllocZero(
		    context, sizeof(CompiledPart) * Max(target.parts().size(), size_t{1})));
	});
	for (const TargetPart &from : target.parts())
	{
		CompiledPart *part = &text.parts[text.count++];

		part->kind = from.kind;
		part->text = keep(context, from.text);
		part->has_substitute = from.has_substitute;
		part->substitute = keep(context, from.substitute);
		if (from.kind == TargetPart::Kind::kLiteral)
			continue;
		text.either = text.either || from.kind == TargetPart::Kind::kEither;
		part->column = find_column(desc, from.text.c_str());
		if (part->column == InvalidAttrNumber)
			text.unknown = true;
		else
			pg::call([&] {
				prepare_value_text(&part->value, TupleDescAttr(desc, part->column - 1)->atttypid,
				                   context);
			});
	}
	return text;
}

void
add_targets(CompiledWatch *watch, List *texts, ItemKind kind, ItemKind widened, TupleDesc desc,
            MemoryContext context)
{
	ListCell *cell;

	foreach (cell, texts)
	{
		CompiledTarget *compiled = &watch->targets[watch->target_count++];
		Target target = Target::parse(static_cast<char *>(lfirst(cell)));

		compiled->kind = kind;
		compiled->name = compile_text(target, desc, context);
		compiled->widened_kind = widened;
		compiled->widened = keep(context, target.widened(kind == ItemKind::kPattern));
	}
}

/* What a channel is told when the watch has no message of its own. */
std::string
default_message(const char *relation)
{
	std::string message = "{\"v\":1,\"relation\":";

	append_json_string(message, relation);
	return message + "}";
}

void
compile_watch(CompiledWatch *watch, const WatchRow *row, const char *relation, TupleDesc desc,
              MemoryContext context)
{
	int targets = list_length(row->keys) + list_length(row->tags) + list_length(row->patterns) +
	              list_length(row->channels);
	ListCell *cell;

	watch->targets = pg::call([&] {
		return static_cast<CompiledTarget *>(
		    MemoryContextAllocZero(context, sizeof(CompiledTarget) * Max(targets, 1)));
	});
	add_targets(watch, row->keys, ItemKind::kKey, ItemKind::kPattern, desc, context);
	add_targets(watch, row->tags, row->tag_kind, row->tag_pattern_kind, desc, context);
	add_targets(watch, row->patterns, ItemKind::kPattern, ItemKind::kPattern, desc, context);
	add_targets(watch, row->channels, ItemKind::kPublish, ItemKind::kPublish, desc, context);
	watch->default_message = keep(context, default_message(relation));
	watch->message = compile_text(row->message != nullptr ? Target::parse(row->message) : Target(),
	                              desc, context);
	if (row->message == nullptr)
		watch->message.literal = watch->default_message;

	watch->repeat_ms = row->repeat_ms;
	watch->filtered = row->filtered;
	watch->columns = pg::call([&] {
		return static_cast<AttrNumber *>(
		    MemoryContextAlloc(context, sizeof(AttrNumber) * Max(list_length(row->columns), 1)));
	});
	foreach (cell, row->columns)
	{
		AttrNumber column = find_column(desc, static_cast<char *>(lfirst(cell)));

		if (column == InvalidAttrNumber)
			watch->filtered = false; /* its changes can no longer be told: every one counts */
		else
			watch->columns[watch->column_count++] = column;
	}
}

/* ---- one row ---- */

/* The row that a placeholder is filled from. */
TupleTableSlot *
row_of(const CompiledPart &part, TupleTableSlot *old_row, TupleTableSlot *new_row,
       TupleTableSlot *either)
{
	switch (part.kind)
	{
	case TargetPart::Kind::kOld:
		return old_row;
	case TargetPart::Kind::kNew:
		return new_row;
	case TargetPart::Kind::kEither:
	case TargetPart::Kind::kLiteral:
		break;
	}
	return either;
}

/* Escape what was appended behind `from`, in place. */
void
escape_glob(StringInfo out, int from)
{
	int specials = 0;

	for (int i = from; i < out->len; ++i)
		specials += strchr("*?[]\\", out->data[i]) != nullptr;
	if (specials == 0)
		return;
	enlargeStringInfo(out, specials);

	int to = out->len + specials;

	for (int i = out->len - 1; i >= from; --i)
	{
		out->data[--to] = out->data[i];
		if (strchr("*?[]\\", out->data[i]) != nullptr)
			out->data[--to] = '\\';
	}
	out->len += specials;
	out->data[out->len] = '\0';
}

/* Fill the text in; false when a NULL without a substitute drops it. */
bool
fill(StringInfo out, const CompiledText &text, bool escape, TupleTableSlot *old_row,
     TupleTableSlot *new_row, TupleTableSlot *either)
{
	resetStringInfo(out);
	for (int i = 0; i < text.count; ++i)
	{
		CompiledPart &part = text.parts[i];
		int from = out->len;

		if (part.kind == TargetPart::Kind::kLiteral)
		{
			appendBinaryStringInfo(out, part.text.data(), static_cast<int>(part.text.size()));
			continue;
		}

		TupleTableSlot *row = row_of(part, old_row, new_row, either);
		bool null = true;
		Datum value = row != nullptr ? slot_getattr(row, part.column, &null) : 0;

		if (null || !append_value_text(out, &part.value, value))
		{
			if (!part.has_substitute)
				return false;
			appendBinaryStringInfo(out, part.substitute.data(),
			                       static_cast<int>(part.substitute.size()));
		}
		if (escape)
			escape_glob(out, from);
	}
	return out->len > 0;
}

std::string_view
view_of(const StringInfoData &text)
{
	return {text.data, static_cast<size_t>(text.len)};
}

void
collect_and_repeat(const CompiledWatch *watch, ItemKind kind, std::string_view name)
{
	collect_name(kind, name);
	if (watch->repeat_ms != 0)
		collect_repeat(watch->repeat_ms, kind, name);
}

/* The name and, on a channel, its message as the given rows fill them. */
void
collect_filled(RelationWatches *all, CompiledWatch *watch, const CompiledTarget &target,
               TupleTableSlot *old_row, TupleTableSlot *new_row, TupleTableSlot *either)
{
	bool escape = target.kind == ItemKind::kPattern;
	int before = journal_count();

	if (!fill(&all->name, target.name, escape, old_row, new_row, either))
		return;
	if (target.kind != ItemKind::kPublish)
		collect_and_repeat(watch, target.kind, view_of(all->name));
	else if (!watch->message.varies)
		collect_message(view_of(all->name), watch->message.literal, false);
	else if (fill(&all->message, watch->message, false, old_row, new_row, either))
		collect_message(view_of(all->name), view_of(all->message), false);
	watch->items += journal_count() - before;
}

/* The target as far as it can be said without a row; once while the journal keeps it. */
void
collect_widened(CompiledWatch *watch, CompiledTarget *target)
{
	if (target->collected == journal_generation())
		return;
	if (target->kind != ItemKind::kPublish)
	{
		if (target->name.varies)
			collect_and_repeat(watch, target->widened_kind, target->widened);
		else
			collect_and_repeat(watch, target->kind, target->name.literal);
	}
	else if (!target->name.varies)
		collect_message(target->name.literal,
		                watch->message.varies ? watch->default_message : watch->message.literal,
		                false);
	target->collected = journal_generation();
}

bool
varies(const CompiledWatch *watch, const CompiledTarget &target)
{
	if (target.kind == ItemKind::kPublish && watch->message.varies && !watch->message.unknown &&
	    !target.name.unknown)
		return true;
	return target.name.varies && !target.name.unknown;
}

void
collect_target(RelationWatches *all, CompiledWatch *watch, CompiledTarget *target,
               TupleTableSlot *old_row, TupleTableSlot *new_row)
{
	bool either =
	    target->name.either || (target->kind == ItemKind::kPublish && watch->message.either);

	if (!varies(watch, *target) || watch->items > kItemsOfWatch)
		collect_widened(watch, target);
	else if (!either)
		collect_filled(all, watch, *target, old_row, new_row, nullptr);
	else
	{
		if (old_row != nullptr)
			collect_filled(all, watch, *target, old_row, new_row, old_row);
		if (new_row != nullptr)
			collect_filled(all, watch, *target, old_row, new_row, new_row);
	}
}

/* Has one of the watch's columns another value, byte for byte? */
bool
counts(const CompiledWatch *watch, TupleTableSlot *old_row, TupleTableSlot *new_row)
{
	if (!watch->filtered || old_row == nullptr || new_row == nullptr)
		return true;
	for (int i = 0; i < watch->column_count; ++i)
	{
		AttrNumber column = watch->columns[i];
		Form_pg_attribute attribute = TupleDescAttr(old_row->tts_tupleDescriptor, column - 1);
		bool old_null;
		bool new_null;
		Datum old_value = slot_getattr(old_row, column, &old_null);
		Datum new_value = slot_getattr(new_row, column, &new_null);

		if (old_null != new_null)
			return true;
		if (!old_null &&
		    !datum_image_eq(old_value, new_value, attribute->attbyval, attribute->attlen))
			return true;
	}
	return false;
}

void
begin_row(CompiledWatch *watch)
{
	if (watch->transaction == journal_transaction())
		return;
	watch->transaction = journal_transaction();
	watch->items = 0;
}

RelationWatches *
compile_rows(List *rows, const char *relation, TupleDesc desc, MemoryContext context)
{
	MemoryContext caller = MemoryContextSwitchTo(context);
	auto *all = static_cast<RelationWatches *>(palloc0(sizeof(RelationWatches)));
	ListCell *cell;

	all->watches = static_cast<CompiledWatch *>(palloc0(sizeof(CompiledWatch) * list_length(rows)));
	initStringInfo(&all->name);
	initStringInfo(&all->message);
	MemoryContextSwitchTo(caller);

	foreach (cell, rows)
	{
		CompiledWatch *watch = &all->watches[all->count++];

		watch->transaction = journal_transaction();
		pg::guard([&] {
			compile_watch(watch, static_cast<WatchRow *>(lfirst(cell)), relation, desc, context);
		});
	}
	return all;
}

bool
is_about_column(const WatchRow *row, const char *column)
{
	ListCell *cell;

	if (!row->filtered || column == nullptr)
		return true;
	foreach (cell, row->columns)
		if (strcmp(static_cast<char *>(lfirst(cell)), column) == 0)
			return true;
	return false;
}

} /* namespace */

RelationWatches *
compile_watches(Oid root, TupleDesc desc, MemoryContext context)
{
	List *rows = read_watches(root);

	if (rows == NIL)
		return nullptr;

	char *name = get_rel_name(root);
	char *schema = get_namespace_name(get_rel_namespace(root));

	return compile_rows(
	    rows, psprintf("%s.%s", schema != nullptr ? schema : "", name != nullptr ? name : ""), desc,
	    context);
}

/* Is there a Redis or a memory tier to tell?  A Redis that is configured later hears of it too. */
static bool
told_to_somebody()
{
	if (pg::redis_configured())
		return true;
	collect_lapse();
	return fence_available();
}

void
watch_row(RelationWatches *all, TupleTableSlot *old_row, TupleTableSlot *new_row)
{
	if (!told_to_somebody())
		return;
	for (int i = 0; i < all->count; ++i)
	{
		CompiledWatch *watch = &all->watches[i];

		begin_row(watch);
		if (!counts(watch, old_row, new_row))
			continue;
		for (int t = 0; t < watch->target_count; ++t)
			collect_target(all, watch, &watch->targets[t], old_row, new_row);
	}
}

void
watch_truncate(RelationWatches *all)
{
	if (!told_to_somebody())
		return;
	for (int i = 0; i < all->count; ++i)
	{
		CompiledWatch *watch = &all->watches[i];

		begin_row(watch);
		for (int t = 0; t < watch->target_count; ++t)
			collect_widened(watch, &watch->targets[t]);
	}
}

void
watch_altered(Oid root, const char *schema, const char *name, const char *column)
{
	List *rows = NIL;
	ListCell *cell;

	foreach (cell, read_watches(root))
		if (is_about_column(static_cast<WatchRow *>(lfirst(cell)), column))
			rows = lappend(rows, lfirst(cell));
	if (rows == NIL)
		return;

	/* What targets widen to needs no column of the table, which may have none any more. */
	watch_truncate(compile_rows(rows, psprintf("%s.%s", schema, name), CreateTemplateTupleDesc(0),
	                            CurrentMemoryContext));
}

} /* namespace cache_ext::invalidation */
