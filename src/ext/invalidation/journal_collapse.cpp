/*-------------------------------------------------------------------------
 *
 * journal_collapse.cpp
 *		A journal that stays bounded however many names a transaction gives.
 *
 * Names are replaced by what the watches widen to, where that covers them, and
 * else by the form that very many of them have in common.  A savepoint's entries
 * are replaced by entries of the same level, so that its rollback takes them away
 * and nothing else.  The coarse entry stands where the last of its names stood: a
 * cache_set before that is taken away with them, which leaves its key absent.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/journal_collapse.hpp"

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/invalidation/widening.hpp"
#include "ext/invalidation/journal_entries.hpp"
#include "ext/invalidation/watch_rows.hpp"
#include "pg/guard.hpp"

extern "C" {
#include "lib/stringinfo.h"
}

namespace cache_ext::invalidation {

constexpr int kMostEntries = 100 * 1000;

namespace {

/* What becomes of an entry. */
struct Successor
{
	int number; /* of the entry */
	ItemKind kind;
	std::string_view item; /* encoded */
	size_t body;
};

/* The last entries first; of equal coarse items on a level only the last one. */
std::vector<Successor>
successors(const Journal *j, Widening *widening)
{
	std::vector<Successor> list;
	std::set<std::pair<int32, const char *>> seen; /* a coarse item is in one place */

	for (int i = j->count - 1; i >= 0; --i)
	{
		const Entry &entry = j->entries[i];
		std::string_view coarse = widening->covering(entry.kind, body_bytes(j, entry));

		if (coarse.empty() || entry.kind == ItemKind::kRepeat)
		{
			list.push_back({i, entry.kind, item_bytes(j, entry), entry.body});
			continue;
		}
		if (!seen.emplace(entry.level, coarse.data()).second)
			continue;

		ItemKind kind;
		std::string_view rest = coarse;
		std::string_view body;

		(void) take_item(rest, kind, body);
		list.push_back({i, kind, coarse, static_cast<size_t>(body.data() - coarse.data())});
	}
	return list;
}

/* Nothing is allocated where the entries are, so nothing can be left half done. */
void
collapse(Journal *j, std::string_view watched)
{
	Widening widening(watched);

	for (int i = 0; i < j->count; ++i)
		widening.learn(j->entries[i].kind, body_bytes(j, j->entries[i]));
	widening.settle();

	std::vector<Successor> list = successors(j, &widening);
	std::string bytes;

	for (auto next = list.rbegin(); next != list.rend(); ++next)
		bytes.append(next->item);
	if (bytes.size() > j->used)
		return;

	Size offset = 0;
	int count = 0;

	for (auto next = list.rbegin(); next != list.rend(); ++next)
	{
		Entry *entry = &j->entries[count++]; /* never behind the one that it replaces */

		entry->level = j->entries[next->number].level;
		entry->kind = next->kind;
		entry->offset = offset;
		entry->length = next->item.size();
		entry->body = next->body;
		offset += entry->length;
	}
	bytes.copy(j->bytes, bytes.size());
	j->used = bytes.size();
	j->count = count;
	entries_replaced(j);
}

} /* namespace */

void
bound_journal()
{
	Journal *j = open_journal();

	if (j == nullptr || j->count < Max(kMostEntries, j->collapse_from))
		return;

	StringInfoData watched;

	initStringInfo(&watched);
	(void) append_widened_items(&watched);
	pg::guard([&] { collapse(j, {watched.data, static_cast<size_t>(watched.len)}); });
	pfree(watched.data);
	j->collapse_from = 2 * j->count;
}

} /* namespace cache_ext::invalidation */
