/*-------------------------------------------------------------------------
 *
 * hot_list.hpp
 *		The names asked for most, kept in a file over restarts; see README.md.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string>
#include <vector>

#include "core/tier/hottest.hpp"
#include "pg/server.hpp"

extern "C" {
#include "utils/timestamp.h"
}

namespace cache_ext::cache {

/* The launcher's part: it is there as long as the server, and in no database. */
class HotKeeper
{
  public:
	/*
	 * Take over what the file has, and return the databases that have names in it,
	 * each once.  None when the server has come up too often without staying up: a
	 * query among them may be what ends it.
	 */
	std::vector<Oid> begin();

	/* From time to time, sooner while the server is young. */
	void save_if_due();

	/* The server stops. */
	void save_last();

  private:
	void save();

	tier::HotList list_;
	uint64 hits_ = 0;
	TimestampTz begun_at_ = 0;
	TimestampTz next_save_ = 0;
	long pause_ms_ = 0;
};

/* This database's names in the file, without key prefix, the hottest first. */
std::vector<std::string> hottest_before();

} /* namespace cache_ext::cache */
