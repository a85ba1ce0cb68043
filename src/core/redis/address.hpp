/*-------------------------------------------------------------------------
 *
 * address.hpp
 *		Where Redis is: reading redis:// and unix:// addresses.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string>
#include <string_view>

namespace cache_ext::redis {

constexpr int kDefaultPort = 6379;

struct Address
{
	std::string host; /* empty when path is set */
	int port = kDefaultPort;
	std::string path; /* unix socket */
	std::string user;
	std::string password;
	int database = 0;

	bool is_unix() const { return !path.empty(); }

	/* "host:port/db" or "/path/db": for messages, never a secret. */
	std::string name() const;
};

/*
 * Read redis://[user[:password]@]host[:port][/database] or
 * unix://[user[:password]@]/path[?db=database].  User, password and path may
 * be percent-encoded.  A name alone before the '@', as in
 * redis://secret@host, is a user; redis://:secret@host has only a password.
 *
 * Throws Error: 22023 naming the part that is wrong and never its content
 * when it could be a secret; 0A000 for rediss://.
 */
Address parse_address(std::string_view url);

} /* namespace cache_ext::redis */
