/*-------------------------------------------------------------------------
 *
 * address.hpp
 *		Where Redis is: reading redis://, rediss:// and unix:// addresses.
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
	bool encrypted = false; /* rediss:// */

	bool is_unix() const { return !path.empty(); }

	/* "host:port/db" or "/path/db": for messages, never a secret. */
	std::string name() const;

	/* The same with its scheme: for views. */
	std::string url() const;
};

/*
 * Read redis://[user[:password]@]host[:port][/database], the same with
 * rediss:// for TLS, or unix://[user[:password]@]/path[?db=database].  User, password and path may
 * be percent-encoded.  A name alone before the '@', as in
 * redis://secret@host, is a user; redis://:secret@host has only a password.
 *
 * Throws Error(22023) naming the part that is wrong and never its content.
 */
Address parse_address(std::string_view url);

} /* namespace cache_ext::redis */
