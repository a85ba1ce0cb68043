/*-------------------------------------------------------------------------
 *
 * delivery_messages.cpp
 *		Messages of a batch: those that were asked for, and the event.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/delivery_steps.hpp"

#include <algorithm>

#include "core/invalidation/event.hpp"
#include "pg/memory.hpp"
#include "pg/settings.hpp"

extern "C" {
#include "commands/dbcommands.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
}

namespace cache_ext::invalidation {

constexpr size_t kNamesInEvent = 1000;

/*
 * May the name stand in JSON as it is?  Names of databases in other encodings
 * that are not plain ASCII are not converted: an event that has to name one
 * says that everything is affected, which no client can misread.
 */
static bool
speakable(std::string_view name)
{
	if (GetDatabaseEncoding() == PG_UTF8)
		return true;
	for (char c : name)
		if (static_cast<unsigned char>(c) >= 0x80)
			return false;
	return true;
}

/* It stays while we are connected: a database in use cannot be renamed. */
static const std::string &
database_name()
{
	static std::string *kept = nullptr;

	if (kept == nullptr)
	{
		char *name = nullptr;

		in_transaction([&](MemoryContext context) {
			char *found = get_database_name(MyDatabaseId);

			name = MemoryContextStrdup(context, found != nullptr ? found : "");
		});
		kept = new std::string(name);
	}
	return *kept;
}

void
Delivery::add_messages(Stream *stream, const Plan &plan, const Taken &taken)
{
	static constexpr int64 kUnixEpochUs = (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
	const std::string &database = database_name();
	std::string event_name = event_channel(pg::key_prefix);
	std::vector<std::string> channels;
	std::vector<std::string> texts;

	for (const PublishBody &message : plan.messages)
	{
		channels.push_back(std::string(pg::key_prefix).append(message.channel));
		texts.emplace_back(message.message);
	}

	/* Names in events are those that watches and functions were given, without the prefix. */
	size_t total = plan.keys.size() + plan.tags.size() + plan.patterns.size();
	bool all = plan.all || !plan.tag_patterns.empty();

	for (const Names *names : {&plan.keys, &plan.tags, &plan.patterns})
		for (std::string_view name : *names)
			all = all || !speakable(name);

	for (size_t first = 0; first < total || (first == 0 && all); first += kNamesInEvent)
	{
		Event event;

		event.database = database;
		event.epoch = taken.state.epoch;
		event.seq = static_cast<uint64>(++state_.seq);
		event.xid = full_xid(plan.newest, taken.next_xid);
		event.lsn = taken.insert_lsn;
		event.at_us = (plan.at != 0 ? plan.at : GetCurrentTimestamp()) + kUnixEpochUs;
		event.all = all;
		for (size_t i = first; i < std::min(total, first + kNamesInEvent); ++i)
		{
			if (i < plan.keys.size())
				event.keys.push_back(plan.keys[i]);
			else if (i < plan.keys.size() + plan.tags.size())
				event.tags.push_back(plan.tags[i - plan.keys.size()]);
			else
				event.patterns.push_back(plan.patterns[i - plan.keys.size() - plan.tags.size()]);
		}
		channels.push_back(event_name);
		texts.push_back(encode_event(event));
	}

	for (size_t i = 0; i < channels.size(); ++i)
		stream->add({"PUBLISH", channels[i], texts[i]}, Stream::Expect::kMessage);
}

} /* namespace cache_ext::invalidation */
