/*-------------------------------------------------------------------------
 *
 * redis_handshake.hpp
 *		The first exchange of a connection: who we are, and who the server is.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "core/base/error.hpp"
#include "pg/transport.hpp"

namespace cache_ext::pg {

struct ServerIdentity
{
	Digest instance{0, 0}; /* one life of the server: digest_instance() of what INFO says */
	bool known = false;    /* false: it hides who it is */
};

/*
 * Log in, choose the database, say our name and ask the server for its: one
 * round trip.  Throws Error: 28000 when it lets us not in, 08006 when it serves
 * nobody now, and what the transport throws.
 */
ServerIdentity shake_hands(const Endpoint &endpoint, Transport *transport,
                           redis::Connection *protocol, const Deadline &deadline);

/* The errors for refusals, which may come later as well. */
Error refused_login(const std::string &name, const std::string &answer);
Error not_serving(const std::string &name, const std::string &answer);

} /* namespace cache_ext::pg */
