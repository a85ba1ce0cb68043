/*-------------------------------------------------------------------------
 *
 * main.cpp
 *		Searches the cache's protocol for broken promises; see README.md.
 *
 *	coherence                     small settings: as designed, and each step left out
 *	coherence large               larger settings, as designed only: minutes
 *	coherence NAME                one step left out ("nothing": as designed)
 *	coherence run NAME            the same, with a shortest run that breaks a promise
 *
 *-------------------------------------------------------------------------
 */
#include <cstdio>
#include <string>

#include "steps.hpp"

using namespace cache_ext::model;

namespace {

constexpr ReaderKind kNone = ReaderKind::kNone;
constexpr ReaderKind kCommitted = ReaderKind::kReadCommitted;
constexpr ReaderKind kRepeatable = ReaderKind::kRepeatableRead;
constexpr ReaderKind kStandby = ReaderKind::kStandby;

const char *const kNames[] = {"nothing",
                              "fence",
                              "fence before generations",
                              "raise before visible",
                              "fence over restart",
                              "fence released on abort",
                              "token before snapshot",
                              "generations before look",
                              "token before redis",
                              "versions before snapshot",
                              "compare of versions",
                              "watch of bare fill",
                              "look at outbox",
                              "fence before look",
                              "generations of look",
                              "nothing known at start",
                              "delivery after commit",
                              "versions before keys",
                              "rows until confirmed",
                              "rows of visible only",
                              "incarnation",
                              "retained",
                              "retained long enough",
                              "nonces",
                              "no store on standby",
                              "wait of sync",
                              "no hit in writer",
                              "no store in writer",
                              "xid of snapshot",
                              "xid after generations",
                              "unknown xid",
                              "owner of set",
                              "look of set",
                              "generations of set first"};
static_assert(sizeof(kNames) / sizeof(kNames[0]) == static_cast<size_t>(Without::kCount));

/* clang-format off */
/* name, writers, readers, their calls; two-phase, sync, memory, redis, sets; crashes, those of the
 * worker, restarts and saves of Redis, evictions */
const Setting kSmall[] = {
	{"memory", 1, {kCommitted, kNone}, {2, 0}, true, false, true, false, false, 1, 0, 0, 0, 0},
	{"readers", 1, {kCommitted, kCommitted}, {2, 1}, true, false, true, false, false, 0, 0, 0, 0, 1},
	{"kept", 1, {kCommitted, kNone}, {3, 0}, false, false, true, true, false, 0, 0, 0, 0, 1},
	{"sets", 2, {kCommitted, kNone}, {2, 0}, true, false, true, false, true, 0, 0, 0, 0, 1},
	{"standby", 1, {kCommitted, kStandby}, {2, 1}, false, true, true, true, false, 0, 0, 0, 0, 0},
	{"prepared", 1, {kCommitted, kNone}, {2, 0}, true, false, true, true, false, 1, 0, 0, 0, 0},
	{"redis", 1, {kCommitted, kNone}, {2, 0}, false, false, true, true, false, 0, 1, 1, 1, 0},
	{"snapshot", 2, {kCommitted, kRepeatable}, {1, 1}, true, false, true, false, false, 1, 0, 0, 0, 0},
	{"alone", 1, {kCommitted, kCommitted}, {1, 1}, false, false, false, true, false, 0, 0, 0, 0, 1},
};
const Setting kLarge[] = {
	{"memory", 2, {kCommitted, kCommitted}, {2, 1}, true, false, true, false, false, 1, 0, 0, 0, 1},
	{"snapshot", 2, {kCommitted, kRepeatable}, {1, 2}, true, false, true, false, false, 1, 0, 0, 0, 1},
	{"sets", 2, {kCommitted, kCommitted}, {1, 1}, true, false, true, false, true, 1, 0, 0, 0, 1},
	{"redis", 1, {kCommitted, kNone}, {2, 0}, false, false, true, true, false, 0, 1, 1, 1, 1},
	{"pair", 1, {kCommitted, kCommitted}, {2, 1}, false, false, true, true, false, 0, 0, 0, 0, 1},
	{"alone", 1, {kCommitted, kCommitted}, {2, 1}, false, false, false, true, false, 0, 0, 0, 0, 1},
	{"standby", 1, {kCommitted, kStandby}, {2, 1}, false, true, true, true, false, 0, 1, 0, 0, 1},
};
/* clang-format on */

/* Whether all promises hold; tells what was found. */
bool
holds(const Setting &setting, Without without, bool show_run)
{
	Explorer<State> explorer;
	Steps steps(setting, without, &explorer);
	bool good = explorer.search(
	    steps.start(), [&](const State &state) { return steps.take_all(state); },
	    [&](const State &state) { steps.at_end(state); });

	if (without == Without::kNothing)
		printf("%-9s %9zu states, %zu ends, hits in memory %llu, in Redis %llu: %s\n", setting.name,
		       explorer.states(), explorer.ends(),
		       static_cast<unsigned long long>(steps.memory_hits()),
		       static_cast<unsigned long long>(steps.redis_hits()),
		       good ? "all promises hold" : explorer.failure().c_str());
	else if (!good)
		printf("without %-26s %-9s %s\n", kNames[static_cast<int>(without)], setting.name,
		       explorer.failure().c_str());
	if (!good && show_run)
	{
		int number = 0;

		for (const char *step : explorer.run())
			printf("   %2d. %s\n", ++number, step);
	}
	return good;
}

bool
is_caught(Without without, bool show_run)
{
	for (const Setting &setting : kSmall)
		if (!holds(setting, without, show_run))
			return true;
	printf("without %-26s NOT FOUND\n", kNames[static_cast<int>(without)]);
	return false;
}

} /* namespace */

int
main(int argc, char **argv)
{
	setvbuf(stdout, nullptr, _IOLBF, 0);

	std::string what = argc > 1 ? argv[1] : "";
	int bad = 0;

	if (what == "large")
	{
		for (const Setting &setting : kLarge)
			bad += !holds(setting, Without::kNothing, true);
		return bad != 0;
	}
	for (int w = 0; w < static_cast<int>(Without::kCount); ++w)
	{
		if (what != "" && what != "run" && what != kNames[w])
			continue;
		if (what == "run" && (argc < 3 || std::string(argv[2]) != kNames[w]))
			continue;
		if (w > 0)
			bad += !is_caught(static_cast<Without>(w), what == "run");
		else
			for (const Setting &setting : kSmall)
				bad += !holds(setting, Without::kNothing, true);
	}
	return bad != 0;
}
