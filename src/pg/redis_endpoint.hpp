/*-------------------------------------------------------------------------
 *
 * redis_endpoint.hpp
 *		Where Redis is, and with what we get in, according to the settings and
 *		the server's environment of now.
 *
 * The one place where an endpoint is chosen.  Secrets are read at the moment
 * of use: what a file holds is not kept.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string>

#include "core/base/digest.hpp"
#include "core/redis/address.hpp"
#include "core/redis/tls.hpp"

namespace cache_ext::pg {

struct Endpoint
{
	bool configured = false;
	redis::Address address;
	std::string name;   /* for messages: no secret */
	Digest fingerprint; /* of all that makes a connection to it: another one is another endpoint */
};

/* The endpoint for the settings of now; read again when they have changed. */
const Endpoint &redis_endpoint();

/* The password for it; empty: none.  Throws Error(28000) when its file cannot be used. */
std::string redis_password(const Endpoint &endpoint);

/* How to encrypt a connection to it.  Throws Error(08001) when a file cannot be used. */
redis::TlsSettings redis_tls_settings(const Endpoint &endpoint);

} /* namespace cache_ext::pg */
