/*-------------------------------------------------------------------------
 *
 * shapes.hpp
 *		Patterns that stand for very many names of the same form.
 *
 * Names are made of parts with colons in between ('shop:7:order:42').  Names of
 * equally many parts that share some of them and differ in others have a form,
 * 'shop:7:order:*'.  A name without a colon is parted by another separator, or
 * before its first digit.
 *
 * Nothing is ever widened to a pattern without a letter or digit of its own:
 * what only '*' could stand for has no form, and stays what it is.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace cache_ext::invalidation {

class Shapes
{
  public:
	enum class Names
	{
		kPlain,
		kPatterns /* their own wildcards stay what they are */
	};

	explicit Shapes(Names names) : names_(names) {}

	/* One of the names, which stays where it is until settle(). */
	void add(std::string_view name);
	size_t count() const { return added_.size(); }

	/* Finds the forms: at most so many, each of at least so many names. */
	void settle(size_t most, size_t at_least);

	/* The pattern for a name, empty when it has no form; depends on this object. */
	std::string_view pattern_of(std::string_view name) const;

  private:
	/* What may follow a part: another one, or anything. */
	struct Node
	{
		std::map<std::string, std::unique_ptr<Node>, std::less<>> literal;
		std::unique_ptr<Node> any;
		std::string pattern; /* of a form, where the parts end; may be empty */
	};

	struct Parts
	{
		char separator;
		std::vector<std::string_view> parts;
	};

	struct Form; /* on the way from the root to a leaf */
	using Group = std::vector<Parts>;

	Parts split(std::string_view name) const;
	void grow(Node *node, Group group, size_t at, Form form, size_t at_least) const;
	std::string text_of(const Form &form) const;

	Names names_;
	std::vector<std::string_view> added_;
	std::map<std::pair<char, size_t>, Node> roots_; /* by separator and number of parts */
};

} /* namespace cache_ext::invalidation */
