/*-------------------------------------------------------------------------
 *
 * load_lock.hpp
 *		One load a miss, and not too many loads at once.
 *
 * All of it only saves work: nobody's answer depends on a lock being held.  The
 * locks are PostgreSQL's own, so a loader that fails, is cancelled or dies frees
 * them by that; a lease in Redis ends by itself.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string>

#include "pg/server.hpp"

namespace cache_ext::cache {

/* Hooks for shared memory: which loads are not worth waiting for. */
void register_load_marks();

/* The right to load one thing on this server; the number is a hash of what is loaded. */
class LoadLock
{
  public:
	/*
	 * The key is given where other servers that share the Redis would find the
	 * value under it, as they do bare ones.
	 */
	explicit LoadLock(uint64 number, std::string_view shared_key = {}) noexcept
	    : number_(number), shared_key_(shared_key)
	{
	}
	~LoadLock() { release_lease(); } /* the lock itself goes with the transaction */
	LoadLock(const LoadLock &) = delete;
	LoadLock &operator=(const LoadLock &) = delete;

	/* Never waits; false: somebody else is loading. */
	bool take();
	void release();

	/* Is nobody of this server loading now? */
	bool is_free() const;

	/* Among the servers that share the value; true also when nobody can be asked. */
	bool take_lease();

	/*
	 * The last load could not be stored (too large, somebody's own), so that
	 * waiting for it would be in vain.
	 */
	bool is_in_vain() const noexcept;
	void note_stored(bool stored) const noexcept;

  private:
	void release_lease() noexcept;

	std::string lease_key() const;

	uint64 number_;
	std::string_view shared_key_;
	bool held_ = false;
	bool leased_ = false;
};

/* One of cache_ext.max_loads; loads within loads share theirs. */
class LoadSlot
{
  public:
	LoadSlot() noexcept;
	~LoadSlot();
	LoadSlot(const LoadSlot &) = delete;
	LoadSlot &operator=(const LoadSlot &) = delete;

	/* Never waits; false: all are taken. */
	bool take();
	void release();

  private:
	int slot_ = 0; /* from 1; 0: none is needed or held */
};

} /* namespace cache_ext::cache */
