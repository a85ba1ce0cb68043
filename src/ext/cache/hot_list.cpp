/*-------------------------------------------------------------------------
 *
 * hot_list.cpp
 *		The names asked for most, kept in a file over restarts; see hot_list.hpp.
 *
 * The file is replaced as a whole and carries a fingerprint, so a crash leaves
 * the list of before or the new one, and anything else is no list.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/cache/hot_list.hpp"

#include <algorithm>

#include "ext/cache/cache.hpp"
#include "ext/cache/memory.hpp"
#include "ext/cache/memory_region.hpp"
#include "ext/cache/memory_scope.hpp"
#include "pg/guard.hpp"

extern "C" {
#include "pgstat.h"
#include "storage/fd.h"
}

namespace cache_ext::cache {

namespace {

constexpr const char *kPath = PGSTAT_STAT_PERMANENT_DIRECTORY "/cache_ext.hottest";
constexpr const char *kNewPath = PGSTAT_STAT_PERMANENT_DIRECTORY "/cache_ext.hottest.new";
constexpr size_t kNames = 1000; /* a database */
constexpr long kFirstPauseMs = 5000;
constexpr long kLongestPauseMs = 60 * 1000;
constexpr TimestampTz kStayedUp = USECS_PER_MINUTE;
constexpr TimestampTz kRemembered = USECS_PER_DAY;
constexpr uint32 kAttempts = 3;

void
complain(const char *what, const char *path)
{
	ereport(LOG, (errcode_for_file_access(), errmsg("could not %s file \"%s\": %m", what, path)));
}

bool
write_file(const char *bytes, size_t size)
{
	FILE *file = AllocateFile(kNewPath, PG_BINARY_W);

	if (file == nullptr)
	{
		complain("open", kNewPath);
		return false;
	}

	bool written = fwrite(bytes, 1, size, file) == size;

	if (FreeFile(file) != 0 || !written)
	{
		complain("write", kNewPath);
		(void) unlink(kNewPath);
		return false;
	}
	return durable_rename(kNewPath, kPath, LOG) == 0;
}

void
write_list(const tier::HotList &list)
{
	std::string bytes = tier::encode(list);

	(void) pg::call([&] { return write_file(bytes.data(), bytes.size()); });
}

/* Appends what the file has at the place; false at its end. */
bool
read_part(FILE *file, std::string *bytes)
{
	char part[8192];
	size_t size = fread(part, 1, sizeof(part), file);

	bytes->append(part, size);
	return size > 0;
}

tier::HotList
read_list()
{
	std::string bytes;
	FILE *file = pg::call([] {
		FILE *opened = AllocateFile(kPath, PG_BINARY_R);

		if (opened == nullptr && errno != ENOENT)
			complain("open", kPath);
		return opened;
	});

	if (file == nullptr)
		return {};
	while (read_part(file, &bytes))
		;
	pg::call([&] { (void) FreeFile(file); });

	auto list = tier::decode_hot_list(bytes);

	if (!list)
		pg::call([] {
			ereport(LOG, (errmsg("ignoring file \"%s\": it is no list of cache keys", kPath)));
		});
	return list ? std::move(*list) : tier::HotList();
}

} /* namespace */

std::vector<Oid>
HotKeeper::begin()
{
	std::vector<Oid> databases;

	if (partition_count == 0)
		return databases;
	list_ = read_list();
	begun_at_ = GetCurrentTimestamp();
	pause_ms_ = kFirstPauseMs;
	next_save_ = begun_at_ + pause_ms_ * 1000;
	if (list_.names.empty())
		return databases;
	if (list_.attempts >= kAttempts)
	{
		pg::call([] {
			ereport(LOG,
			        (errmsg("the hottest cache keys of before are not loaded"),
			         errdetail("The server has not stayed up for a minute after the last %u times.",
			                   kAttempts)));
		});
		return databases;
	}
	++list_.attempts;
	write_list(list_);
	for (const tier::HotName &name : list_.names)
		if (std::find(databases.begin(), databases.end(), database_of_scope(name.scope)) ==
		    databases.end())
			databases.push_back(database_of_scope(name.scope));
	return databases;
}

void
HotKeeper::save()
{
	tier::Hottest hottest(kNames);
	TimestampTz now = GetCurrentTimestamp();
	uint64 hits = offer_hottest(&hottest, now);
	bool stayed = list_.attempts > 0 && now - begun_at_ >= kStayedUp;

	if (hits == hits_ && !stayed)
		return;
	hits_ = hits;
	if (stayed)
		list_.attempts = 0;
	list_.names = tier::remember(hottest.take(), list_.names, kNames, now - kRemembered);
	write_list(list_);
}

void
HotKeeper::save_if_due()
{
	if (partition_count == 0 || GetCurrentTimestamp() < next_save_)
		return;
	save();
	pause_ms_ = std::min(pause_ms_ * 2, kLongestPauseMs);
	next_save_ = GetCurrentTimestamp() + pause_ms_ * 1000;
}

/* Whoever stops the server has it under control: it was no crash. */
void
HotKeeper::save_last()
{
	if (partition_count == 0)
		return;
	begun_at_ = 0;
	save();
}

std::vector<std::string>
hottest_before()
{
	std::vector<std::string> names;
	std::string prefix = full_key("");
	uint64 scope = memory_scope();

	for (tier::HotName &name : read_list().names)
		if (name.scope == scope && name.name.compare(0, prefix.size(), prefix) == 0)
			names.push_back(name.name.substr(prefix.size()));
	return names;
}

} /* namespace cache_ext::cache */
