/*-------------------------------------------------------------------------
 *
 * load_lock.cpp
 *		One load a miss, and not too many loads at once; see load_lock.hpp.
 *
 * Heavyweight locks of families of their own, taken only when they are free:
 * whoever does not get one sleeps and tries again, so query cancel is obeyed, no
 * queue forms behind a slow loader, and two loads that need each other end with
 * the bound on the wait.
 *
 *-------------------------------------------------------------------------
 */
#include "ext/cache/load_lock.hpp"

#include "core/base/digest.hpp"
#include "ext/cache/cache.hpp"
#include "ext/cache/conversation.hpp"
#include "pg/guard.hpp"
#include "pg/redis_link.hpp"
#include "pg/settings.hpp"
#include "pg/shared_memory.hpp"

extern "C" {
#include "access/xlog.h"
#include "common/pg_prng.h"
#include "port/atomics.h"
#include "storage/lock.h"
#include "utils/timestamp.h"
}

namespace cache_ext::cache {

/* Advisory lock tags of ours differ from the users' in their last field; see also outbox.cpp. */
constexpr uint16 kLoadFamily = 0xD0;
constexpr uint16 kSlotFamily = 0xD1;

/* -------------------------------------------------------------------------
 * Loads that waiting for would be in vain
 * -------------------------------------------------------------------------
 */

/* A hash table in which newer marks push out older ones: a lost mark costs one wait. */
constexpr size_t kMarks = 2048;

struct Marks
{
	pg_atomic_uint64 numbers[kMarks];
};

static Marks *marks = nullptr;

static void
request_marks()
{
	RequestAddinShmemSpace(sizeof(Marks));
}

static void
attach_marks()
{
	marks = pg::attach_shared<Marks>("cache_ext load marks", sizeof(Marks), [](Marks *fresh) {
		for (pg_atomic_uint64 &number : fresh->numbers)
			pg_atomic_init_u64(&number, 0);
	});
}

static pg::SharedArea area = {request_marks, attach_marks};

void
register_load_marks()
{
	pg::add_shared_area(&area);
}

bool
LoadLock::is_in_vain() const noexcept
{
	return marks != nullptr && pg_atomic_read_u64(&marks->numbers[number_ % kMarks]) == number_;
}

void
LoadLock::note_stored(bool stored) const noexcept
{
	if (marks == nullptr || stored != is_in_vain())
		return;
	pg_atomic_write_u64(&marks->numbers[number_ % kMarks], stored ? 0 : number_);
}

/* -------------------------------------------------------------------------
 * One load a miss
 * -------------------------------------------------------------------------
 */

static LOCKTAG
lock_tag(uint64 number)
{
	LOCKTAG tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, static_cast<uint32>(number >> 32),
	                     static_cast<uint32>(number), kLoadFamily);
	return tag;
}

bool
LoadLock::take()
{
	if (!held_)
		held_ = pg::call([&] {
			LOCKTAG tag = lock_tag(number_);

			return LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
		});
	return held_;
}

bool
LoadLock::is_free() const
{
	return !held_ && pg::call([&] {
		LOCKTAG tag = lock_tag(number_);
		int holders = 0;

		pfree(GetLockConflicts(&tag, ShareLock, &holders));
		return holders == 0;
	});
}

void
LoadLock::release()
{
	release_lease(); /* before the lock: who takes that next asks for the lease */
	if (!held_)
		return;
	held_ = false;
	pg::call([&] {
		LOCKTAG tag = lock_tag(number_);

		(void) LockRelease(&tag, ExclusiveLock, false);
	});
}

std::string
LoadLock::lease_key() const
{
	return full_key("l:" + Digester().add(shared_key_).finish().hex());
}

/* Tells servers apart, and lives of one server. */
static std::string
server_identity()
{
	return Digester()
	    .add(GetSystemIdentifier())
	    .add(static_cast<uint64>(PgStartTime))
	    .add(std::string_view(DataDir))
	    .finish()
	    .hex();
}

/*
 * A lease of this server's own was left by a session that has died: whoever asks
 * holds the lock that it held.
 */
bool
LoadLock::take_lease()
{
	if (shared_key_.empty())
		return true;

	std::string key = lease_key();
	std::string identity = server_identity();
	redis::Request request;

	request.add({"SET", key, identity, "NX", "PX", std::to_string(pg::load_wait_ms)});
	request.add({"GET", key});

	auto replies = ask(request);

	if (!replies || note_first_refusal(*replies))
		return true;
	leased_ = replies->back().text == identity;
	return leased_;
}

void
LoadLock::release_lease() noexcept
{
	if (!leased_)
		return;
	leased_ = false;
	try
	{
		redis::Request request;

		request.add({"UNLINK", lease_key()});
		(void) ask(request);
	}
	catch (...)
	{
		/* It ends by itself. */
	}
}

/* -------------------------------------------------------------------------
 * Not too many at once
 * -------------------------------------------------------------------------
 */

static LOCKTAG
slot_tag(int slot)
{
	LOCKTAG tag;

	SET_LOCKTAG_ADVISORY(tag, InvalidOid, static_cast<uint32>(slot), 0, kSlotFamily);
	return tag;
}

/* Loads under way in this process, one within the other. */
static int depth = 0;

LoadSlot::LoadSlot() noexcept
{
	++depth;
}

LoadSlot::~LoadSlot()
{
	--depth;
}

bool
LoadSlot::take()
{
	if (pg::max_loads == 0 || depth > 1 || slot_ != 0)
		return true;

	int first = static_cast<int>(pg_prng_uint64(&pg_global_prng_state) %
	                             static_cast<uint64>(pg::max_loads));

	slot_ = pg::call([&] {
		for (int i = 0; i < pg::max_loads; ++i)
		{
			int slot = 1 + (first + i) % pg::max_loads;
			LOCKTAG tag = slot_tag(slot);

			if (LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL)
				return slot;
		}
		return 0;
	});
	return slot_ != 0;
}

void
LoadSlot::release()
{
	if (slot_ == 0)
		return;

	LOCKTAG tag = slot_tag(slot_);

	slot_ = 0;
	pg::call([&] { (void) LockRelease(&tag, ExclusiveLock, false); });
}

} /* namespace cache_ext::cache */
