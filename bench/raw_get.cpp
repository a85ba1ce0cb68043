/*-------------------------------------------------------------------------
 *
 * raw_get.cpp
 *		The median of what a GET takes, in microseconds: raw_get SOCKET KEY COUNT
 *
 * redis-benchmark rounds its percentiles to 8 microseconds.
 *
 *-------------------------------------------------------------------------
 */
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <hiredis/hiredis.h>

int
main(int argc, char **argv)
{
	using Clock = std::chrono::steady_clock;

	redisContext *redis = argc == 4 ? redisConnectUnix(argv[1]) : nullptr;
	std::vector<double> took;

	if (redis == nullptr || redis->err != 0)
		return 1;
	for (int left = atoi(argv[3]); left > 0; --left)
	{
		Clock::time_point begun = Clock::now();
		auto *reply = static_cast<redisReply *>(redisCommand(redis, "GET %s", argv[2]));

		if (reply == nullptr || reply->type != REDIS_REPLY_STRING)
			return 1;
		freeReplyObject(reply);
		took.push_back(std::chrono::duration<double, std::micro>(Clock::now() - begun).count());
	}
	if (took.empty())
		return 1;
	std::nth_element(took.begin(), took.begin() + took.size() / 2, took.end());
	printf("%.2f\n", took[took.size() / 2]);
	redisFree(redis);
	return 0;
}
