/*-------------------------------------------------------------------------
 *
 * redis_endpoint.cpp
 *		Where Redis is, and with what we get in; see redis_endpoint.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pg/guard.hpp"
#include "pg/redis_endpoint.hpp"
#include "pg/redis_health.hpp"
#include "pg/settings.hpp"

namespace cache_ext::pg {

/* A plain pointer: FATAL leaves by exit(), which destroys static objects. */
static Endpoint *endpoint = nullptr;
static unsigned int endpoint_generation = 0;

static const char *
environment(const char *name)
{
	const char *value = getenv(name);

	return value != nullptr && *value != '\0' ? value : nullptr;
}

static bool
is_set(const char *setting)
{
	return setting != nullptr && *setting != '\0';
}

static void
read_environment(Endpoint *chosen)
{
	if (const char *url = environment("REDIS_URL"))
	{
		chosen->address = redis::parse_address(url);
		chosen->configured = true;
	}
	else if (const char *host = environment("REDIS_HOST"))
	{
		const char *port = environment("REDIS_PORT");
		const char *password = environment("REDIS_PASSWORD");
		std::string url = "redis://";

		/* Only to have host and port checked; a bare IPv6 address gets its brackets. */
		url += strchr(host, ':') != nullptr && *host != '[' ? "[" + std::string(host) + "]" : host;
		if (port != nullptr)
			url += std::string(":") + port;
		chosen->address = redis::parse_address(url);
		if (password != nullptr)
			chosen->address.password = password;
		chosen->configured = true;
	}
}

/* An environment that cannot be used counts as none, and the log says so once. */
static void
complain_about_environment(const Error &error)
{
	call([&] {
		if (tell_about_environment())
			ereport(LOG, (errmsg("the server's environment names no usable Redis: %s",
			                     error.message().c_str()),
			              errhint("Correct REDIS_URL or REDIS_HOST and REDIS_PORT, or set "
			                      "cache_ext.redis_url."),
			              errhidestmt(true)));
	});
}

static Digest
fingerprint_of(const redis::Address &address)
{
	Digester digester;

	for (const std::string &part : {address.url(), address.user, address.password})
		digester.add(uint64_t{part.size()}).add(part);
	for (const char *setting :
	     {redis_password_file, redis_tls_ca_file, redis_tls_certificate_file, redis_tls_key_file})
	{
		std::string_view part = setting != nullptr ? setting : "";

		digester.add(uint64_t{part.size()}).add(part);
	}
	return digester.add(uint64_t{static_cast<unsigned>(redis_tls_verify)}).finish();
}

const Endpoint &
redis_endpoint()
{
	if (endpoint != nullptr && endpoint_generation == redis_settings_generation)
		return *endpoint;

	auto chosen = std::make_unique<Endpoint>();
	unsigned int generation = redis_settings_generation;

	if (is_set(redis_url))
	{
		chosen->address = redis::parse_address(redis_url);
		chosen->configured = true;
	}
	else
	{
		try
		{
			read_environment(chosen.get());
		}
		catch (const Error &error)
		{
			complain_about_environment(error);
		}
	}
	if (chosen->configured)
		chosen->name = chosen->address.name();
	chosen->fingerprint = fingerprint_of(chosen->address);
	delete endpoint;
	endpoint = chosen.release();
	endpoint_generation = generation;
	return *endpoint;
}

/* -------------------------------------------------------------------------
 * Secrets
 * -------------------------------------------------------------------------
 */

/*
 * The text of a file that holds a secret.  It must be a plain one that only the
 * server's user can read, or root's and the group's, as for the server's own
 * TLS key.  Throws Error of the state; what begins its sentences.
 */
static std::string
read_secret_file(const char *path, const char *what, SqlState state, const std::string &message)
{
	constexpr size_t kLargest = 64 * 1024;
	int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat status;
	std::string text(kLargest, '\0');

	if (file < 0)
		throw Error(state, message,
		            std::string(what) + " could not be opened: " + strerror(errno) + ".");

	int code = fstat(file, &status) < 0 ? errno : 0;
	mode_t forbidden = status.st_uid == 0 ? S_IRWXO | S_IWGRP | S_IXGRP : S_IRWXG | S_IRWXO;
	bool acceptable = code == 0 && S_ISREG(status.st_mode) &&
	                  (status.st_uid == geteuid() || status.st_uid == 0) &&
	                  (status.st_mode & forbidden) == 0;
	ssize_t count = acceptable ? read(file, text.data(), text.size()) : 0;

	if (count < 0)
		code = errno;
	::close(file);
	if (code != 0)
		throw Error(state, message,
		            std::string(what) + " could not be read: " + strerror(code) + ".");
	if (!acceptable)
		throw Error(state, message,
		            std::string(what) +
		                " must be a plain file that belongs to the server's user with mode 0600 or "
		                "less, or to root with mode 0640 or less.");
	text.resize(static_cast<size_t>(count));
	return text;
}

std::string
redis_password(const Endpoint &of)
{
	if (!is_set(redis_password_file))
		return of.address.password;

	std::string text =
	    read_secret_file(redis_password_file, "The password file", kInvalidAuthorization,
	                     "could not log in to Redis server \"" + of.name + "\"");

	return text.substr(0, text.find_first_of("\r\n"));
}

redis::TlsSettings
redis_tls_settings(const Endpoint &of)
{
	redis::TlsSettings settings;

	settings.host = of.address.host;
	settings.verify_host = redis_tls_verify == kTlsVerifyFull;
	if (is_set(redis_tls_ca_file))
		settings.ca_file = redis_tls_ca_file;
	if (is_set(redis_tls_certificate_file))
		settings.certificate_file = redis_tls_certificate_file;
	if (is_set(redis_tls_key_file))
		settings.key = read_secret_file(
		    redis_tls_key_file, "The client key file", kCannotConnect,
		    "could not set up an encrypted connection to Redis server \"" + of.name + "\"");
	return settings;
}

} /* namespace cache_ext::pg */
