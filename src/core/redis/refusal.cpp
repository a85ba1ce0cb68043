/*-------------------------------------------------------------------------
 *
 * refusal.cpp
 *		What an error that Redis answers says; see refusal.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "core/redis/refusal.hpp"

namespace cache_ext::redis {

Refusal
classify_refusal(std::string_view text) noexcept
{
	static constexpr struct
	{
		std::string_view word;
		Refusal refusal;
	} kWords[] = {
	    {"WRONGTYPE", Refusal::kData},
	    {"NOAUTH", Refusal::kLogin},
	    {"WRONGPASS", Refusal::kLogin},
	    {"NOPERM", Refusal::kPermission},
	    {"OOM", Refusal::kFull},
	    {"MISCONF", Refusal::kFull},
	    {"NOREPLICAS", Refusal::kFull},
	    {"LOADING", Refusal::kNotServing},
	    {"BUSY", Refusal::kNotServing},
	    {"MASTERDOWN", Refusal::kNotServing},
	    {"READONLY", Refusal::kNotServing},
	    {"CLUSTERDOWN", Refusal::kNotServing},
	    {"MOVED", Refusal::kNotServing},
	    {"ASK", Refusal::kNotServing},
	    {"TRYAGAIN", Refusal::kNotServing},
	};
	/* Numbers have no word of their own. */
	for (std::string_view number : {"ERR value is not an integer", "ERR increment or decrement"})
		if (text.substr(0, number.size()) == number)
			return Refusal::kData;

	std::string_view first = text.substr(0, text.find(' '));

	for (const auto &each : kWords)
		if (first == each.word)
			return each.refusal;
	return Refusal::kOther;
}

} /* namespace cache_ext::redis */
