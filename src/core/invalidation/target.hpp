/*-------------------------------------------------------------------------
 *
 * target.hpp
 *		Reading the targets of a watch: 'vendor:{vendor_id}:snapshot'.
 *
 * {column} stands for the value in the old and in the new row, {old.column} and
 * {new.column} for one of them, {column|text} gives a substitute for NULL.
 * {{ and }} are braces.  A column whose name would be mistaken is written in
 * double quotes: {"old.x"}, {new."a|b"}.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace cache_ext::invalidation {

struct TargetPart
{
	enum class Kind
	{
		kLiteral,
		kEither, /* {column}: filled from the old row and again from the new one */
		kOld,
		kNew
	};

	Kind kind = Kind::kLiteral;
	std::string text; /* the literal, or the column's name */
	bool has_substitute = false;
	std::string substitute;
};

class Target
{
  public:
	/* Throws Error(22023) that names the position of what is wrong. */
	static Target parse(std::string_view text);

	const std::vector<TargetPart> &parts() const { return parts_; }
	bool has_placeholders() const;

	/* The text of a target without placeholders. */
	std::string literal() const;

	/*
	 * The glob pattern that matches whatever the target can become.  Literals
	 * are escaped, unless the target is a pattern itself.
	 */
	std::string widened(bool is_pattern) const;

  private:
	std::vector<TargetPart> parts_;
};

} /* namespace cache_ext::invalidation */
