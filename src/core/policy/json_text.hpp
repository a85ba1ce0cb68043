/*-------------------------------------------------------------------------
 *
 * json_text.hpp
 *		Looking into a JSON text and changing a value in it, all else untouched.
 *
 * Sessions are applications' own texts: what is rewritten here has to come back to
 * them byte for byte but for the one value.  Of members with the same name the last
 * one counts, as for JSON.parse and jsonb.  A text that is not JSON is looked into as
 * far as it goes; nothing is promised of it but that nothing breaks.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cache_ext::policy {

/* A value's place in the text. */
struct Span
{
	size_t begin;
	size_t end;

	std::string_view of(std::string_view text) const { return text.substr(begin, end - begin); }
};

/* Where the value stands that these names lead to, from object to object. */
std::optional<Span> find_value(std::string_view json, const std::vector<std::string_view> &path);

/*
 * A scalar as text: a string without quotes and escapes, true, false, a number in plain
 * digits (1e3 is 1000, as in jsonb).  Nothing for null, objects and arrays.
 */
std::optional<std::string> scalar_text(std::string_view value);

/*
 * Is there such a field with this text for value?  The field is a member's name, or
 * names separated by dots that lead from object to object.
 */
bool has_field(std::string_view json, std::string_view field, std::string_view value);

/* The names of an object's members, each once, in their order. */
std::vector<std::string> member_names(std::string_view json);

} /* namespace cache_ext::policy */
