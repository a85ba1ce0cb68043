/*-------------------------------------------------------------------------
 *
 * reply.cpp
 *		What Redis answered; see reply.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "core/redis/reply.hpp"

namespace cache_ext::redis {

constexpr size_t kMaxReadable = 200;

std::string
readable(std::string_view text)
{
	std::string out(text.substr(0, kMaxReadable));

	for (char &c : out)
		if (c < ' ' || c > '~')
			c = '?';
	if (text.size() > kMaxReadable)
		out += "...";
	return out;
}

} /* namespace cache_ext::redis */
