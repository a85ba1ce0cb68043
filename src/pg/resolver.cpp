/*-------------------------------------------------------------------------
 *
 * resolver.cpp
 *		From a host's name to its addresses; see resolver.hpp.
 *
 * The child is spawned, not forked: it shares neither the server's memory nor
 * its signal handlers, and however big this process is, that takes a
 * millisecond.
 *
 *-------------------------------------------------------------------------
 */
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <string_view>

#include <fcntl.h>
#include <netdb.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pg/guard.hpp"
#include "pg/resolver.hpp"

extern "C" {
#include "storage/fd.h"
}

extern char **environ;

namespace cache_ext::pg {

constexpr size_t kMostOutput = 16 * 1024;
constexpr size_t kMostAddresses = 16;

/* The child of now, 0: none.  Known outside of stack objects, which FATAL does not destroy. */
static pid_t child = 0;

void
abandon_resolver() noexcept
{
	if (child == 0)
		return;
	kill(child, SIGKILL);
	while (waitpid(child, nullptr, 0) < 0 && errno == EINTR)
		;
	child = 0;
}

namespace {

/* The end of a pipe that we read; the server counts its descriptor. */
class Output
{
  public:
	Output() = default;
	~Output()
	{
		waiter.close();
		if (fd >= 0)
			::close(fd);
		if (counted)
			ReleaseExternalFD();
		abandon_resolver();
	}
	Output(const Output &) = delete;
	Output &operator=(const Output &) = delete;

	int fd = -1;
	bool counted = false;
	Waiter waiter;
};

/* Start getent with its output in the pipe; the result is 0 or an error number. */
int
spawn_getent(const std::string &host, int output)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none;
	sigset_t all;
	const char *const arguments[] = {"getent", "ahosts", host.c_str(), nullptr};

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
	posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
	                                          POSIX_SPAWN_SETPGROUP);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &all);
	posix_spawnattr_setpgroup(&attributes, 0);

	int code = posix_spawnp(&child, "getent", &actions, &attributes,
	                        const_cast<char *const *>(arguments), environ);

	if (code != 0)
		child = 0;
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return code;
}

/* What the child writes, up to its end; false when the deadline has passed. */
bool
read_output(Output *from, std::string *text, const Deadline &deadline)
{
	char buffer[4096];

	for (;;)
	{
		ssize_t count = read(from->fd, buffer, sizeof(buffer));

		if (count == 0 || text->size() > kMostOutput)
			return true;
		if (count > 0)
			text->append(buffer, static_cast<size_t>(count));
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
		{
			if (!from->waiter.wait(WL_SOCKET_READABLE, deadline))
				return false;
		}
		else if (errno != EINTR)
			return true;
	}
}

/* Append the address that a number in text form stands for; false when it is none. */
bool
add_number(const std::string &number, const std::string &port, std::vector<SocketAddress> *list)
{
	addrinfo hints;
	addrinfo *found = nullptr;
	SocketAddress address;

	memset(&hints, 0, sizeof(hints));
	hints.ai_socktype = SOCK_STREAM;
	hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
	if (getaddrinfo(number.c_str(), port.c_str(), &hints, &found) != 0)
		return false;
	memset(&address, 0, sizeof(address));
	address.length = found->ai_addrlen;
	memcpy(&address.storage, found->ai_addr, found->ai_addrlen);
	freeaddrinfo(found);
	list->push_back(address);
	return true;
}

/* Lines of "address STREAM name". */
std::vector<SocketAddress>
read_addresses(std::string_view text, const std::string &port)
{
	std::vector<SocketAddress> list;

	while (!text.empty() && list.size() < kMostAddresses)
	{
		std::string_view line = text.substr(0, text.find('\n'));

		text.remove_prefix(std::min(text.size(), line.size() + 1));
		if (line.find("STREAM") != std::string_view::npos)
			add_number(std::string(line.substr(0, line.find_first_of(" \t"))), port, &list);
	}
	return list;
}

} /* namespace */

std::vector<SocketAddress>
resolve_host(const std::string &host, int port, const Deadline &deadline, std::string *why)
{
	std::string service = std::to_string(port);
	std::vector<SocketAddress> list;

	if (add_number(host, service, &list))
		return list;

	Output output;
	int ends[2];

	output.counted = AcquireExternalFD();
	if (!output.counted || pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
	{
		*why = "The host name could not be resolved: too many files are open.";
		return list;
	}
	output.fd = ends[0];
	output.waiter.open(output.fd);

	/* The child's end blocks: that is what programs expect of their output. */
	int flags = fcntl(ends[1], F_GETFL);
	int code = flags >= 0 && fcntl(ends[1], F_SETFL, flags & ~O_NONBLOCK) >= 0 ? 0 : errno;

	if (code == 0)
		code = spawn_getent(host, ends[1]);
	::close(ends[1]);
	if (code != 0)
	{
		*why = std::string("The program getent, which resolves host names, could not be run: ") +
		       strerror(code) + ".";
		return list;
	}

	std::string text;

	if (!read_output(&output, &text, deadline))
	{
		*why = "The host name was not resolved in time.";
		return list;
	}

	list = read_addresses(text, service);
	if (list.empty())
		*why = "The host name could not be resolved.";
	return list;
}

} /* namespace cache_ext::pg */
