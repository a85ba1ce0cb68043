/*-------------------------------------------------------------------------
 *
 * error.hpp
 *		The one exception that core code throws.
 *
 * It carries what the boundary needs to report it in PostgreSQL's form.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string>
#include <utility>

namespace cache_ext {

/* Five characters, as in errcodes.txt. */
struct SqlState
{
	char code[6];
};

constexpr SqlState kInvalidParameterValue{"22023"};
constexpr SqlState kInvalidTextRepresentation{"22P02"};
constexpr SqlState kFeatureNotSupported{"0A000"};
constexpr SqlState kCannotConnect{"08001"};
constexpr SqlState kConnectionFailure{"08006"};
constexpr SqlState kInvalidAuthorization{"28000"};
constexpr SqlState kProtocolViolation{"08P01"};
constexpr SqlState kTooManyConnections{"53300"};
constexpr SqlState kDataCorrupted{"XX001"};

/*
 * Message in PostgreSQL's style (lower case, no period); detail and hint are
 * sentences or empty.  Never put a secret into any of them.
 */
class Error
{
  public:
	Error(SqlState state, std::string message, std::string detail = {}, std::string hint = {})
	    : state_(state), message_(std::move(message)), detail_(std::move(detail)),
	      hint_(std::move(hint))
	{
	}

	const SqlState &state() const noexcept { return state_; }
	const std::string &message() const noexcept { return message_; }
	const std::string &detail() const noexcept { return detail_; }
	const std::string &hint() const noexcept { return hint_; }

  private:
	SqlState state_;
	std::string message_;
	std::string detail_;
	std::string hint_;
};

} /* namespace cache_ext */
