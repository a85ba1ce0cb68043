/*-------------------------------------------------------------------------
 *
 * items.cpp
 *		Collecting what a transaction invalidates, publishes and sets.
 *
 * PRE_COMMIT and PRE_PREPARE insert outbox rows and then raise the fence of the
 * memory tier (fence.hpp), which may fail and then aborts.
 * The callbacks after that forget the journal and settle with the worker table:
 * atomics and a latch, nothing that can fail.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/items.hpp"

#include "core/invalidation/bucket.hpp"
#include "core/invalidation/glob.hpp"
#include "core/invalidation/item.hpp"
#include "ext/invalidation/fence.hpp"
#include "ext/invalidation/journal_collapse.hpp"
#include "ext/invalidation/journal_entries.hpp"
#include "ext/invalidation/queue.hpp"
#include "ext/invalidation/tables.hpp"
#include "ext/worker.hpp"
#include "pg/objects.hpp"
#include "pg/redis_link.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "access/xact.h"
#include "mb/pg_wchar.h"
}

namespace cache_ext::invalidation {

namespace {

/* An item whose body is one string. */
int
add_name(ItemKind kind, std::string_view name)
{
	Journal *j = current_journal();
	char *start = reserve_bytes(j, 1 + kMaxNumberBytes + name.size());
	char *at = start;

	*at++ = static_cast<char>(kind);
	at = put_number(at, name.size());
	name.copy(at, name.size());

	Size body = static_cast<Size>(at - start);

	return add_entry(j, kind, body + name.size(), body);
}

bool
has_patterns(const Journal *j)
{
	for (int i = 0; i < j->count; ++i)
		if (needs_scan(j->entries[i].kind))
			return true;
	return false;
}

void
before_commit()
{
	const Journal *journal = open_journal();

	if (journal == nullptr || (journal->count == 0 && !journal->lapse))
		return;

	bool configured = pg::redis_configured();

	if (!OidIsValid(pg::internal_table("outbox"))) /* this transaction drops the extension */
	{
		raise_fence(journal);
		return;
	}
	if (journal->lapse || !configured)
		insert_lapse();
	if (journal->count > 0 && configured)
	{
		queue_items(journal);
		worker::note_committed_changes_soon(worker::Work::kOutbox);
		if (pg::invalidation_mode == pg::kInvalidationSync)
			worker::confirm_commit(has_patterns(journal));
	}
	raise_fence(journal);
}

void
on_transaction(XactEvent event, void *)
{
	switch (event)
	{
	case XACT_EVENT_PRE_COMMIT:
	case XACT_EVENT_PRE_PREPARE:
		before_commit();
		break;
	case XACT_EVENT_COMMIT:
	case XACT_EVENT_ABORT:
	case XACT_EVENT_PREPARE:
	case XACT_EVENT_PARALLEL_COMMIT:
	case XACT_EVENT_PARALLEL_ABORT:
		forget_journal();
		break;
	case XACT_EVENT_PARALLEL_PRE_COMMIT:
		break;
	}
}

void
on_savepoint(SubXactEvent event, SubTransactionId, SubTransactionId, void *)
{
	end_savepoint(event);
}

} /* namespace */

void
register_item_callbacks()
{
	RegisterXactCallback(on_transaction, nullptr);
	RegisterSubXactCallback(on_savepoint, nullptr);
}

void
check_name(std::string_view name, const char *what)
{
	if (name.empty())
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s must not be empty", what)));
	if (name.size() > kMaxNameBytes)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s is too long", what),
		                errdetail("It has %zu bytes, at most %zu are allowed.", name.size(),
		                          kMaxNameBytes)));
}

void
check_allowed(std::string_view name, const char *what)
{
	std::string_view allowed = pg::allowed_prefix != nullptr ? pg::allowed_prefix : "";

	if (name.substr(0, allowed.size()) != allowed)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
		                errmsg("%s must begin with \"%s\"", what, pg::allowed_prefix),
		                errdetail("This session is kept to it by cache_ext.allowed_prefix.")));
}

void
check_channel(std::string_view channel)
{
	if (channel == kEventsChannel)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("channel \"%.*s\" is reserved", static_cast<int>(channel.size()),
		                       channel.data()),
		                errdetail("On it subscribers are told what has been invalidated."),
		                errhint("Give messages of your own another channel.")));
}

void
check_pattern(std::string_view pattern)
{
	check_name(pattern, "pattern");
	if (glob_stars(pattern) > kMaxPatternStars)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("pattern has more than %d asterisks", kMaxPatternStars)));
}

int
collect_name(ItemKind kind, std::string_view name)
{
	return add_name(kind, name);
}

void
collect_key(std::string_view key)
{
	check_name(key, "key");
	add_name(ItemKind::kKey, key);
	bound_journal();
}

void
collect_tag(std::string_view tag)
{
	check_name(tag, "tag");
	add_name(ItemKind::kTag, tag);
	bound_journal();
}

void
collect_session(std::string_view key)
{
	check_name(key, "session");
	add_name(ItemKind::kSession, key);
	bound_journal();
}

void
collect_pattern(std::string_view pattern)
{
	check_pattern(pattern);
	if (!glob_is_literal(pattern))
	{
		add_name(ItemKind::kPattern, pattern);
		bound_journal();
		return;
	}

	/* Resolve the escapes where the pattern stands: the key it means is no longer. */
	auto *key = static_cast<char *>(palloc(pattern.size()));
	size_t length = 0;

	for (size_t i = 0; i < pattern.size(); ++i)
	{
		if (pattern[i] == '\\' && i + 1 < pattern.size())
			++i;
		key[length++] = pattern[i];
	}
	add_name(ItemKind::kKey, {key, length});
	pfree(key);
	bound_journal();
}

void
collect_tag_pattern(std::string_view pattern)
{
	check_pattern(pattern);
	add_name(ItemKind::kTagPattern, pattern);
}

void
collect_repeat(uint64 after_ms, ItemKind kind, std::string_view name)
{
	Journal *j = current_journal();
	Size body_length = number_bytes(after_ms) + 1 + name.size();
	char *start = reserve_bytes(j, 1 + kMaxNumberBytes + body_length);
	char *at = start;

	*at++ = static_cast<char>(ItemKind::kRepeat);
	at = put_number(at, body_length);

	Size body = static_cast<Size>(at - start);

	at = put_number(at, after_ms);
	*at++ = static_cast<char>(kind);
	name.copy(at, name.size());
	add_entry(j, ItemKind::kRepeat, body + body_length, body);
}

int
collect_message(std::string_view channel, std::string_view message, bool repeatable)
{
	Journal *j = current_journal();
	Size body_length = number_bytes(channel.size()) + channel.size() + message.size();
	char *start = reserve_bytes(j, 1 + kMaxNumberBytes + body_length);
	char *at = start;

	*at++ = static_cast<char>(ItemKind::kPublish);
	at = put_number(at, body_length);

	Size body = static_cast<Size>(at - start);

	at = put_number(at, channel.size());
	memcpy(at, channel.data(), channel.size());
	memcpy(at + channel.size(), message.data(), message.size());
	return add_entry(j, ItemKind::kPublish, body + body_length, body, repeatable);
}

void
collect_publish(std::string_view channel, std::string_view message)
{
	check_name(channel, "channel");
	collect_message(channel, message, true);
}

void
collect_clear()
{
	add_name(ItemKind::kClear, {});
}

void
collect_set(const SetItem &item)
{
	check_name(item.key, "key");

	Size body_length = 1 + number_bytes(static_cast<uint64>(item.ttl_ms)) +
	                   number_bytes(item.key.size()) + item.key.size() +
	                   number_bytes(static_cast<uint64>(item.tag_count)) + item.value.size();

	for (int i = 0; i < item.tag_count; ++i)
	{
		check_name(item.tags[i], "tag");
		body_length += number_bytes(item.tags[i].size()) + item.tags[i].size();
	}

	Journal *j = current_journal();
	char *start = reserve_bytes(j, 1 + kMaxNumberBytes + body_length);
	char *at = start;
	auto put_bytes = [&at](std::string_view bytes) {
		at = put_number(at, bytes.size());
		memcpy(at, bytes.data(), bytes.size());
		at += bytes.size();
	};

	*at++ = static_cast<char>(ItemKind::kSet);
	at = put_number(at, body_length);

	Size body = static_cast<Size>(at - start);

	*at++ = item.plain ? kSetPlain : 0;
	at = put_number(at, static_cast<uint64>(item.ttl_ms));
	put_bytes(item.key);
	at = put_number(at, static_cast<uint64>(item.tag_count));
	for (int i = 0; i < item.tag_count; ++i)
		put_bytes(item.tags[i]);
	memcpy(at, item.value.data(), item.value.size());
	add_entry(j, ItemKind::kSet, body + body_length, body, true);
}

void
collect_lapse()
{
	current_journal()->lapse = true;
}

PendingValue
pending_value(std::string_view key)
{
	const Journal *j = open_journal();
	bool removed = false;

	if (j == nullptr)
		return {Pending::kNothing, {}, 0};

	for (int i = j->count - 1; i >= 0; --i)
	{
		const Entry &entry = j->entries[i];
		std::string_view body = body_bytes(j, entry);
		SetBody set;

		switch (entry.kind)
		{
		case ItemKind::kSet:
			if (!set.read(body) || set.key != key)
				break;
			for (int later = i + 1; later < j->count; ++later)
				if (removes(j->entries[later].kind, body_bytes(j, j->entries[later]), set))
					return {Pending::kRemoved, {}, 0};
			return {Pending::kSet, set.value, static_cast<int64>(set.ttl_ms)};
		case ItemKind::kKey:
		case ItemKind::kSession:
			if (body == key)
				return {Pending::kRemoved, {}, 0};
			break;
		case ItemKind::kPattern:
			removed = removed || glob_match(body, key);
			break;
		case ItemKind::kClear:
			removed = true;
			break;
		case ItemKind::kTag:
		case ItemKind::kTagPattern:
		case ItemKind::kTagSet:
		case ItemKind::kTagSetPattern:
		case ItemKind::kRepeat:
		case ItemKind::kPublish:
		case ItemKind::kLapse:
			break;
		}
	}
	return {removed ? Pending::kRemoved : Pending::kNothing, {}, 0};
}

bool
removal_collected(std::string_view key) noexcept
{
	const Journal *j = open_journal();

	for (int i = 0; j != nullptr && i < j->count; ++i)
		if (removes_key(item_bytes(j, j->entries[i]), key))
			return true;
	return false;
}

void
mark_collected_removals(const std::string_view *keys, int count, bool *removed) noexcept
{
	const Journal *j = open_journal();

	for (int i = 0; j != nullptr && i < j->count; ++i)
		mark_removed(item_bytes(j, j->entries[i]), keys, count, removed);
}

bool
have_items() noexcept
{
	const Journal *journal = open_journal();

	return journal != nullptr && journal->count > 0;
}

} /* namespace cache_ext::invalidation */
