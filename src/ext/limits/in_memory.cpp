/*-------------------------------------------------------------------------
 *
 * in_memory.cpp
 *		Rate limits in the shared memory of the server; see README.md.
 *
 * The table is divided into parts, each with a lightweight lock.  A lock is held for one
 * decision, and the time is taken under it, so that times come in order.  It is a leaf:
 * nothing is waited for, raised or allocated under it.
 *
 * Preloaded, there is memory for it; otherwise a small table finds room in the slack of
 * shared memory at the first use.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/limits/limits.hpp"

#include "core/policy/limit_table.hpp"
#include "ext/cache/counters.hpp"
#include "pg/guard.hpp"
#include "pg/memory.hpp"
#include "pg/shared_memory.hpp"

extern "C" {
#include "utils/fmgrprotos.h"
}

namespace cache_ext::limits {

using policy::LimitPlace;
using policy::LimitTable;

namespace {

constexpr const char *kTranche = "cache_ext rate limits";
constexpr int kParts = 128;
constexpr int kPlacesOfPart = 256;

/* Without preloading. */
constexpr int kFewParts = 2;
constexpr int kFewPlacesOfPart = 128;

struct SharedLimits
{
	int tranche;
	int parts;
	int places_of_part;
	LWLockPadded *locks; /* at the same address in every process, as all of shared memory */
	LimitPlace *places;
};

SharedLimits *shared = nullptr;

Size
bytes_of(int parts, int places_of_part)
{
	return add_size(
	    MAXALIGN(sizeof(SharedLimits)),
	    add_size(mul_size(sizeof(LWLockPadded), static_cast<Size>(parts)),
	             mul_size(sizeof(LimitPlace), static_cast<Size>(parts * places_of_part))));
}

void
attach(int parts, int places_of_part)
{
	Size bytes = bytes_of(parts, places_of_part);

	shared = pg::attach_shared<SharedLimits>(kTranche, bytes, [&](SharedLimits *fresh) {
		memset(static_cast<void *>(fresh), 0, bytes);
		fresh->tranche = LWLockNewTrancheId();
		fresh->parts = parts;
		fresh->places_of_part = places_of_part;
		fresh->locks = reinterpret_cast<LWLockPadded *>(reinterpret_cast<char *>(fresh) +
		                                                MAXALIGN(sizeof(SharedLimits)));
		fresh->places = reinterpret_cast<LimitPlace *>(fresh->locks + parts);
		for (int i = 0; i < parts; ++i)
			LWLockInitialize(&fresh->locks[i].lock, fresh->tranche);
	});
	LWLockRegisterTranche(shared->tranche, kTranche);
}

void
request_area()
{
	RequestAddinShmemSpace(bytes_of(kParts, kPlacesOfPart));
}

void
attach_area()
{
	attach(kParts, kPlacesOfPart);
}

pg::SharedArea area = {request_area, attach_area};

void
use_area()
{
	if (shared == nullptr)
		attach(kFewParts, kFewPlacesOfPart);
}

LimitTable
part(int number)
{
	return LimitTable(shared->places + number * shared->places_of_part,
	                  static_cast<size_t>(shared->places_of_part));
}

/*
 * Nobody can make two keys meet, as they could with a cheaper fingerprint: keys are
 * what clients send, and who meets another's key shares its limit.
 */
Digest
fingerprint(std::string_view key, const policy::Limit &limit)
{
	StringInfoData bytes;

	initStringInfo(&bytes);
	appendStringInfo(&bytes, "%u:%c:" INT64_FORMAT ":", MyDatabaseId,
	                 static_cast<char>(limit.algorithm), static_cast<int64>(limit.period_us));
	appendBinaryStringInfo(&bytes, key.data(), static_cast<int>(key.size()));

	text *input = cstring_to_text_with_len(bytes.data, bytes.len);
	const bytea *hash = DatumGetByteaP(DirectFunctionCall1(sha256_bytea, PointerGetDatum(input)));

	return Digest::from_bytes(pg::view(hash));
}

} /* namespace */

void
register_limits()
{
	pg::add_shared_area(&area);
}

std::optional<policy::Verdict>
decide_in_memory(std::string_view key, const policy::Limit &limit, int64 cost, bool may_forget)
{
	struct
	{
		bool decided;
		bool forgotten;
		policy::Verdict verdict;
	} result = {};

	pg::call([&] {
		use_area();

		Digest digest = fingerprint(key, limit);
		auto number = static_cast<int>(digest.high % static_cast<uint64>(shared->parts));
		LWLock *lock = &shared->locks[number].lock;

		LWLockAcquire(lock, LW_EXCLUSIVE);

		/* Above zero, as the table wants it. */
		auto now_us = static_cast<int64>(cache::clock_ns() / 1000) + 1;
		LimitPlace *place = part(number).find(digest, now_us, may_forget, &result.forgotten);

		if (place != nullptr)
		{
			result.decided = true;
			result.verdict = policy::decide(limit, cost, now_us, &place->state);
			place->until_us = now_us + result.verdict.reset_after_us;
		}
		LWLockRelease(lock);
	});
	if (result.forgotten)
		cache::count(cache::Tally::kLimitForgotten);
	if (!result.decided)
		return std::nullopt;
	return result.verdict;
}

MemoryFigures
memory_figures()
{
	MemoryFigures figures = {0, 0};

	use_area();
	figures.room = shared->parts * shared->places_of_part;
	for (int i = 0; i < shared->parts; ++i)
	{
		LWLockAcquire(&shared->locks[i].lock, LW_SHARED);
		figures.used +=
		    static_cast<int64>(part(i).used(static_cast<int64>(cache::clock_ns() / 1000) + 1));
		LWLockRelease(&shared->locks[i].lock);
	}
	return figures;
}

} /* namespace cache_ext::limits */
