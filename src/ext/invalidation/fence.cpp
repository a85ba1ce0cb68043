/*-------------------------------------------------------------------------
 *
 * fence.cpp
 *		Generations in shared memory and the locks around a commit; see fence.hpp.
 *
 * The locks are advisory ones of our own family, in a mode that writers share, so
 * nobody ever waits for them.  Generations are raised while the locks are held,
 * so whoever sees a new generation and no lock sees the transaction as well.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/invalidation/fence.hpp"

#include <algorithm>
#include <new>

#include "ext/invalidation/queue.hpp"
#include "pg/shared_memory.hpp"

extern "C" {
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/timestamp.h"
}

namespace cache_ext::invalidation {

namespace {

/* Advisory lock tags of ours differ from the users' in their last field. */
constexpr uint16 kFenceFamily = 0xCF;

/* A transaction that touches more buckets than this fences everything. */
constexpr int kMaxFences = 16;

/* Each transaction's sets are compared with all that follows: beyond, values are just not kept. */
constexpr int kMaxSetsKept = 1000;

struct SharedFence
{
	std::atomic<uint64_t> last_unknown_xid; /* 0: not determined yet */
	tier::Generations generations;
};

SharedFence *shared = nullptr;
SetCommitting set_committing = nullptr;

void
request_fence()
{
	RequestAddinShmemSpace(sizeof(SharedFence));
}

void
attach_fence()
{
	shared = pg::attach_shared<SharedFence>("cache_ext fence", sizeof(SharedFence),
	                                        [](void *area) { new (area) SharedFence(); });
}

pg::SharedArea area = {request_fence, attach_fence};

void
set_fence_tag(LOCKTAG *tag, uint32 generation)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, generation, 0, kFenceFamily);
}

/* The generations that a transaction raises, each once. */
struct Fences
{
	uint32 numbers[kMaxFences];
	int count;
};

Fences
fences_of(const Journal *journal)
{
	Fences fences;

	fences.count = 0;
	for (int i = 0; i < journal->count; ++i)
	{
		const Entry &entry = journal->entries[i];
		uint32 bucket = fine_item_bucket(entry.kind, body_bytes(journal, entry));
		uint32 number = generation_of_fine_bucket(bucket);
		uint32 *end = fences.numbers + fences.count;

		if (bucket == kNoFineBucket || std::find(fences.numbers, end, number) != end)
			continue;
		if (fences.count == kMaxFences)
		{
			fences.numbers[0] = generation_of_all();
			fences.count = 1;
			break;
		}
		fences.numbers[fences.count++] = number;
	}
	return fences;
}

uint64
last_assigned_xid() noexcept
{
	return U64FromFullTransactionId(ReadNextFullTransactionId()) - 1;
}

/*
 * The transaction that readers with a snapshot compare with.  One without xid
 * has changed nothing itself; it speaks for whatever has been committed so far.
 */
uint64
invalidating_xid() noexcept
{
	FullTransactionId xid = GetTopFullTransactionIdIfAny();

	return FullTransactionIdIsValid(xid) ? U64FromFullTransactionId(xid) : last_assigned_xid();
}

void
offer_sets(const Journal *journal)
{
	if (journal->last_set < 0 || set_committing == nullptr || journal->count > kMaxSetsKept)
		return;
	for (int i = 0; i <= journal->last_set; ++i)
	{
		const Entry &entry = journal->entries[i];
		SetBody set;

		if (entry.kind == ItemKind::kSet && set.read(body_bytes(journal, entry)) &&
		    lasts(journal, i, set))
			set_committing(set);
	}
}

} /* namespace */

/* Databases are strangers: their equal names begin at different generations. */
uint32
generation_of_fine_bucket(uint32 bucket) noexcept
{
	return (bucket + murmurhash32(MyDatabaseId)) % tier::kGenerations;
}

void
register_fence()
{
	pg::add_shared_area(&area);
}

bool
fence_available() noexcept
{
	return shared != nullptr;
}

void
on_set_committing(SetCommitting hook) noexcept
{
	set_committing = hook;
}

void
raise_fence(const Journal *journal)
{
	if (journal->count == 0)
		return;

	Fences fences = fences_of(journal);

	for (int i = 0; i < fences.count; ++i)
	{
		LOCKTAG tag;

		set_fence_tag(&tag, fences.numbers[i]);
		(void) LockAcquire(&tag, RowExclusiveLock, false, false);
	}

	/* A prepared transaction's locks may outlive a start without preloading. */
	if (shared == nullptr)
		return;

	uint64 xid = invalidating_xid();
	auto now = static_cast<uint64>(GetCurrentTimestamp());

	for (int i = 0; i < fences.count; ++i)
		shared->generations.raise(fences.numbers[i], xid, now);
	offer_sets(journal);
}

void
raise_at_once(uint32 generation) noexcept
{
	shared->generations.raise(generation, last_assigned_xid(),
	                          static_cast<uint64>(GetCurrentTimestamp()));
}

tier::Generations &
generations() noexcept
{
	return shared->generations;
}

uint32
generation_of(NameKind kind, std::string_view name) noexcept
{
	return generation_of_fine_bucket(fine_bucket_of(kind, name));
}

uint32
generation_of_all() noexcept
{
	return generation_of_fine_bucket(kFineBucketOfAll);
}

bool
fence_is_up(const uint32 *numbers, int count)
{
	for (int i = 0; i < count; ++i)
	{
		LOCKTAG tag;
		int holders = 0;

		set_fence_tag(&tag, numbers[i]);

		VirtualTransactionId *who = GetLockConflicts(&tag, ShareLock, &holders);

		/* In recovery, where there is no memory tier, this would be static memory. */
		pfree(who);
		if (holders > 0)
			return true;
	}
	return false;
}

/*
 * Prepared transactions from before the start may still be open, and the start
 * itself is too early to know the next transaction's number: the first who asks
 * determines it, before anything is stored.
 */
uint64
last_unknown_xid() noexcept
{
	uint64 xid = shared->last_unknown_xid.load();

	if (xid == 0)
	{
		uint64 now = last_assigned_xid();

		if (shared->last_unknown_xid.compare_exchange_strong(xid, now))
			xid = now;
	}
	return xid;
}

} /* namespace cache_ext::invalidation */
