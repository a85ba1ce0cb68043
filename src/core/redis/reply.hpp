/*-------------------------------------------------------------------------
 *
 * reply.hpp
 *		What Redis answered.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cache_ext::redis {

struct Reply
{
	enum class Kind
	{
		kNil,
		kString, /* bulk string: any bytes */
		kStatus, /* "+OK" */
		kError,  /* "-ERR ...": an answer like any other, the connection stays good */
		kInteger,
		kArray
	};

	Kind kind = Kind::kNil;
	int64_t integer = 0;
	std::string text; /* of kString, kStatus and kError */
	std::vector<Reply> elements;

	bool is_nil() const { return kind == Kind::kNil; }
	bool is_string() const { return kind == Kind::kString; }
	bool is_error() const { return kind == Kind::kError; }
	bool is_array() const { return kind == Kind::kArray; }
	bool is_ok() const { return kind == Kind::kStatus && text == "OK"; }
};

/*
 * A server's text made fit for a message or the log: cut to 200 bytes, what is
 * not printable ASCII replaced by '?'.
 */
std::string readable(std::string_view text);

} /* namespace cache_ext::redis */
