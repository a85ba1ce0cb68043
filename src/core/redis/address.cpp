/*-------------------------------------------------------------------------
 *
 * address.cpp
 *		Reading Redis addresses; see address.hpp.
 *
 * Messages name the part that is wrong and quote nothing: what stands in the
 * wrong place of an address is often the password.
 *
 *-------------------------------------------------------------------------
 */
#include <optional>

#include "core/base/error.hpp"
#include "core/redis/address.hpp"

namespace cache_ext::redis {

/* What fits into sockaddr_un with its terminating zero, on every system we build for. */
constexpr size_t kMaxSocketPath = 103;
constexpr long kMaxDatabase = 1000000;

[[noreturn]] static void
refuse(const char *what, const char *hint = "")
{
	throw Error(kInvalidParameterValue, std::string("invalid Redis address: ") + what,
	            "The forms are redis://[user[:password]@]host[:port][/database], the same with "
	            "rediss:// for TLS, and unix://[user[:password]@]/path[?db=database].",
	            hint);
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static std::string
decode_percent(std::string_view part, const char *complaint)
{
	std::string out;

	for (size_t i = 0; i < part.size(); ++i)
	{
		char c = part[i];

		if (c == '%')
		{
			int high = i + 2 < part.size() ? hex_digit(part[i + 1]) : -1;
			int low = i + 2 < part.size() ? hex_digit(part[i + 2]) : -1;

			if (high < 0 || low < 0)
				refuse(complaint);
			c = static_cast<char>(high * 16 + low);
			i += 2;
		}
		if (c == '\0')
			refuse(complaint);
		out.push_back(c);
	}
	return out;
}

static std::optional<long>
read_number(std::string_view digits, long max)
{
	long number = 0;

	if (digits.empty() || digits.size() > 9)
		return std::nullopt;
	for (char c : digits)
	{
		if (c < '0' || c > '9')
			return std::nullopt;
		number = number * 10 + (c - '0');
	}
	if (number > max)
		return std::nullopt;
	return number;
}

static void
read_credentials(std::string_view part, Address *address)
{
	size_t colon = part.find(':');

	address->user =
	    decode_percent(part.substr(0, colon), "a bad percent sequence in the user name");
	if (colon != std::string_view::npos)
		address->password =
		    decode_percent(part.substr(colon + 1), "a bad percent sequence in the password");
}

static void
read_database(std::string_view digits, Address *address)
{
	auto number = read_number(digits, kMaxDatabase);

	if (!number)
		refuse("the database is not a number");
	address->database = static_cast<int>(*number);
}

static void
read_host_and_port(std::string_view part, Address *address)
{
	std::string_view host;
	std::string_view rest;

	if (!part.empty() && part.front() == '[')
	{
		size_t close = part.find(']');

		if (close == std::string_view::npos)
			refuse("the host begins with [ and has no ]");
		host = part.substr(1, close - 1);
		rest = part.substr(close + 1);
	}
	else
	{
		size_t colon = part.find(':');

		host = part.substr(0, colon);
		if (colon != std::string_view::npos)
			rest = part.substr(colon);
	}
	if (host.empty())
		refuse("there is no host");
	for (unsigned char c : host)
		if (c <= ' ' || c == 0x7f)
			refuse("the host contains a blank or a control character");
	if (host.front() == '-')
		refuse("the host begins with a hyphen");
	address->host = std::string(host);

	if (rest.empty())
		return;
	auto port = rest.front() == ':' ? read_number(rest.substr(1), 65535) : std::nullopt;
	if (!port || *port == 0)
		refuse("the port is not a number between 1 and 65535",
		       "A ':', '/' or '@' inside a password must be percent-encoded.");
	address->port = static_cast<int>(*port);
}

/* What stands between "redis://" or "rediss://" and the end. */
static void
read_tcp(std::string_view rest, Address *address)
{
	size_t end = rest.find_first_of("/?#");
	std::string_view authority = rest.substr(0, end);
	size_t at = authority.rfind('@');

	if (at != std::string_view::npos)
	{
		read_credentials(authority.substr(0, at), address);
		authority.remove_prefix(at + 1);
	}
	read_host_and_port(authority, address);

	if (end == std::string_view::npos)
		return;
	if (rest[end] != '/' || rest.find_first_of("?#", end) != std::string_view::npos)
		refuse("options after the database are not known");
	if (end + 1 < rest.size())
		read_database(rest.substr(end + 1), address);
}

/* What stands between "unix://" and the end. */
static void
read_unix(std::string_view rest, Address *address)
{
	size_t slash = rest.find('/');

	if (slash == std::string_view::npos)
		refuse("there is no path to a socket");
	if (slash > 0)
	{
		if (rest[slash - 1] != '@')
			refuse("the path to the socket does not begin with /",
			       "A relative path is not possible: unix:///tmp/redis.sock has three slashes.");
		read_credentials(rest.substr(0, slash - 1), address);
	}

	std::string_view path = rest.substr(slash);
	size_t question = path.find('?');

	if (question != std::string_view::npos)
	{
		std::string_view option = path.substr(question + 1);

		if (option.substr(0, 3) != "db=")
			refuse("options other than db are not known");
		read_database(option.substr(3), address);
		path = path.substr(0, question);
	}
	address->path = decode_percent(path, "a bad percent sequence in the path");
	if (address->path.size() < 2)
		refuse("there is no path to a socket");
	if (address->path.size() > kMaxSocketPath)
		refuse("the path to the socket is too long");
}

Address
parse_address(std::string_view url)
{
	constexpr std::string_view kTcp = "redis://";
	constexpr std::string_view kUnix = "unix://";
	constexpr std::string_view kTls = "rediss://";
	Address address;

	if (url.substr(0, kTls.size()) == kTls)
	{
		address.encrypted = true;
		read_tcp(url.substr(kTls.size()), &address);
	}
	else if (url.substr(0, kTcp.size()) == kTcp)
		read_tcp(url.substr(kTcp.size()), &address);
	else if (url.substr(0, kUnix.size()) == kUnix)
		read_unix(url.substr(kUnix.size()), &address);
	else
		refuse("it does not begin with redis://, rediss:// or unix://");
	return address;
}

std::string
Address::name() const
{
	std::string name;

	if (is_unix())
		name = path;
	else if (host.find(':') != std::string::npos)
		name = "[" + host + "]:" + std::to_string(port);
	else
		name = host + ":" + std::to_string(port);
	if (database != 0)
		name += (is_unix() ? "?db=" : "/") + std::to_string(database);
	return name;
}

std::string
Address::url() const
{
	return (is_unix() ? "unix://" : encrypted ? "rediss://" : "redis://") + name();
}

} /* namespace cache_ext::redis */
