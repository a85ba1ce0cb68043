/*-------------------------------------------------------------------------
 *
 * resolver.hpp
 *		From a host's name to its addresses, without blocking the process.
 *
 * The system's resolver blocks, for minutes when a name server is silent, and
 * obeys neither cancel nor a deadline.  In the process it could only run in a
 * thread, which a backend must not have.  So a program of the system,
 * getent(1), asks it: a child whose output is waited for like any descriptor
 * and which is killed when the wait ends otherwise.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string>
#include <vector>

#include <sys/socket.h>

#include "pg/waiting.hpp"

namespace cache_ext::pg {

struct SocketAddress
{
	sockaddr_storage storage;
	socklen_t length;

	const sockaddr *get() const { return reinterpret_cast<const sockaddr *>(&storage); }
};

/*
 * The addresses for stream sockets in the order of preference.  A number is no
 * question to anybody.  Empty with *why set when there are none or the deadline
 * has passed; why is a sentence.  A cancel comes as PgError.
 */
std::vector<SocketAddress> resolve_host(const std::string &host, int port, const Deadline &deadline,
                                        std::string *why);

/* At the end of the process: no child is left behind. */
void abandon_resolver() noexcept;

} /* namespace cache_ext::pg */
