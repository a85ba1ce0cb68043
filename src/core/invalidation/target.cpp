/*-------------------------------------------------------------------------
 *
 * target.cpp
 *		Reading the targets of a watch; see target.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "core/invalidation/target.hpp"

#include "core/base/error.hpp"
#include "core/invalidation/glob.hpp"

namespace cache_ext::invalidation {

namespace {

class Parser
{
  public:
	explicit Parser(std::string_view text) : text_(text) {}

	std::vector<TargetPart> run()
	{
		while (!at_end())
		{
			char c = text_[at_];

			if (c == '{' && !doubled('{'))
			{
				flush_literal();
				parts_.push_back(placeholder());
			}
			else if (c == '}' && !doubled('}'))
				fail("unmatched \"}\"", at_);
			else
			{
				literal_.push_back(c);
				at_ += c == '{' || c == '}' ? 2 : 1;
			}
		}
		flush_literal();
		return std::move(parts_);
	}

  private:
	bool at_end() const { return at_ >= text_.size(); }
	bool doubled(char c) const { return at_ + 1 < text_.size() && text_[at_ + 1] == c; }

	void flush_literal()
	{
		if (literal_.empty())
			return;
		TargetPart part;

		part.text = std::move(literal_);
		literal_.clear();
		parts_.push_back(std::move(part));
	}

	/* Positions are counted in characters, continuation bytes of UTF-8 left out. */
	[[noreturn]] void fail(const char *what, size_t position) const
	{
		size_t characters = 1;

		for (size_t i = 0; i < position; ++i)
			characters += (static_cast<unsigned char>(text_[i]) & 0xc0) != 0x80;
		throw Error(
		    kInvalidParameterValue,
		    std::string(what) + " in watch target \"" + std::string(text_) + "\"",
		    "It is at position " + std::to_string(characters) + ".",
		    "Write {column}, {old.column}, {new.column} or {column|text}; a brace is {{ or }}.");
	}

	bool skip_word(std::string_view word)
	{
		if (text_.substr(at_, word.size()) != word)
			return false;
		at_ += word.size();
		return true;
	}

	/* At the opening brace. */
	TargetPart placeholder()
	{
		size_t start = at_++;
		TargetPart part;

		part.kind = TargetPart::Kind::kEither;
		if (skip_word("old."))
			part.kind = TargetPart::Kind::kOld;
		else if (skip_word("new."))
			part.kind = TargetPart::Kind::kNew;

		part.text = !at_end() && text_[at_] == '"' ? quoted_name(start) : plain_name(start);
		if (part.text.empty())
			fail("missing column name", at_);

		if (!at_end() && text_[at_] == '|')
		{
			++at_;
			part.has_substitute = true;
			part.substitute = substitute(start);
		}
		if (at_end())
			fail("unmatched \"{\"", start);
		if (text_[at_] != '}')
			fail("unexpected character", at_);
		++at_;
		return part;
	}

	std::string plain_name(size_t start)
	{
		std::string name;

		for (;; ++at_)
		{
			if (at_end())
				fail("unmatched \"{\"", start);
			if (text_[at_] == '{')
				fail("unexpected \"{\"", at_);
			if (text_[at_] == '}' || text_[at_] == '|')
				return name;
			name.push_back(text_[at_]);
		}
	}

	std::string quoted_name(size_t start)
	{
		std::string name;

		for (++at_;; ++at_)
		{
			if (at_end())
				fail("unmatched \"{\"", start);
			if (text_[at_] == '"')
			{
				if (!doubled('"'))
					break;
				++at_;
			}
			name.push_back(text_[at_]);
		}
		++at_;
		return name;
	}

	std::string substitute(size_t start)
	{
		std::string text;

		for (;; ++at_)
		{
			if (at_end())
				fail("unmatched \"{\"", start);
			char c = text_[at_];

			if (c == '}' && !doubled('}'))
				return text;
			if (c == '{' && !doubled('{'))
				fail("unexpected \"{\"", at_);
			if (c == '{' || c == '}')
				++at_;
			text.push_back(c);
		}
	}

	std::string_view text_;
	size_t at_ = 0;
	std::string literal_;
	std::vector<TargetPart> parts_;
};

} /* namespace */

Target
Target::parse(std::string_view text)
{
	Target target;

	target.parts_ = Parser(text).run();
	return target;
}

bool
Target::has_placeholders() const
{
	for (const TargetPart &part : parts_)
		if (part.kind != TargetPart::Kind::kLiteral)
			return true;
	return false;
}

std::string
Target::literal() const
{
	std::string text;

	for (const TargetPart &part : parts_)
		text += part.text;
	return text;
}

std::string
Target::widened(bool is_pattern) const
{
	std::string pattern;
	bool star = false;

	for (const TargetPart &part : parts_)
	{
		if (part.kind == TargetPart::Kind::kLiteral)
		{
			pattern += is_pattern ? part.text : glob_escape(part.text);
			star = false;
		}
		else if (!star)
		{
			pattern.push_back('*');
			star = true;
		}
	}
	return pattern;
}

} /* namespace cache_ext::invalidation */
