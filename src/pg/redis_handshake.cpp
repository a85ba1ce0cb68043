/*-------------------------------------------------------------------------
 *
 * redis_handshake.cpp
 *		The first exchange of a connection; see redis_handshake.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "core/cache/envelope.hpp"
#include "core/redis/refusal.hpp"
#include "core/redis/server_report.hpp"
#include "pg/redis_handshake.hpp"

namespace cache_ext::pg {

Error
refused_login(const std::string &name, const std::string &answer)
{
	return Error(kInvalidAuthorization, "could not log in to Redis server \"" + name + "\"",
	             "It answers: " + answer);
}

Error
not_serving(const std::string &name, const std::string &answer)
{
	return Error(kConnectionFailure, "Redis server \"" + name + "\" does not serve us now",
	             "It answers: " + answer);
}

/* What the server refuses here keeps us out, whatever its reason. */
static void
check_step(const Endpoint &endpoint, const redis::Reply &reply)
{
	if (!reply.is_error())
		return;

	std::string text = redis::readable(reply.text);
	redis::Refusal refusal = redis::classify_refusal(reply.text);

	if (refusal == redis::Refusal::kNotServing || refusal == redis::Refusal::kFull)
		throw not_serving(endpoint.name, text);
	throw refused_login(endpoint.name, text);
}

ServerIdentity
shake_hands(const Endpoint &endpoint, Transport *transport, redis::Connection *protocol,
            const Deadline &deadline)
{
	redis::Request request;
	std::string password = redis_password(endpoint);
	std::string database = std::to_string(endpoint.address.database);
	const std::string &user = endpoint.address.user;
	size_t steps = 0; /* that must be good */

	if (!user.empty())
		request.add({"AUTH", user, password});
	else if (!password.empty())
		request.add({"AUTH", password});
	if (endpoint.address.database != 0)
		request.add({"SELECT", database});
	request.add({"INFO", "server"});
	request.add({"INFO", "replication"});
	steps = request.commands();
	request.add({"CLIENT", "SETNAME", "cache_ext"}); /* a courtesy: may be forbidden */

	protocol->begin(request);
	transport->run(protocol, deadline);

	std::vector<redis::Reply> replies = protocol->take_replies();

	for (size_t i = 0; i < steps; ++i)
		check_step(endpoint, replies[i]);

	std::string_view run_id = redis::report_field(replies[steps - 2].text, "run_id");
	std::string_view replication_id = redis::report_field(replies[steps - 1].text, "master_replid");
	ServerIdentity identity;

	identity.known = !run_id.empty() && !replication_id.empty();
	identity.instance = cache::digest_instance(run_id, replication_id);
	return identity;
}

} /* namespace cache_ext::pg */
