/*-------------------------------------------------------------------------
 *
 * adaptive_spin.hpp
 *		Whether to stay awake for an answer before sleeping.
 *
 * A server that is near answers sooner than a process falls asleep and is
 * woken, so it pays to look for the answer for about as long as that takes
 * (competitive spinning: Karlin, Li, Manasse, Owicki, SOSP 1991).  It does not
 * where the server is far, or where others want the processor, the server
 * among them; then it is tried ever more seldom.  One success takes back less
 * than one failure adds, so what mostly fails ends.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <algorithm>

namespace cache_ext::redis {

class AdaptiveSpin
{
  public:
	/* Is this one of the waits that begin awake? */
	bool wanted()
	{
		if (left_out_ == pause_)
		{
			left_out_ = 0;
			return true;
		}
		++left_out_;
		return false;
	}

	/* What a wait that was wanted came to. */
	void succeeded() { pause_ = std::max(pause_ - 1, 0); }
	void failed() { pause_ = std::min(2 * pause_ + 2, kLongestPause); }

  private:
	static constexpr int kLongestPause = 63; /* waits left out between two that begin awake */

	int pause_ = 0;
	int left_out_ = 0;
};

} /* namespace cache_ext::redis */
