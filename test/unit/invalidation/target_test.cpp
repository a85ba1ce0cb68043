/*-------------------------------------------------------------------------
 *
 * target_test.cpp
 *		Targets of watches: what they stand for, and where they are wrong.
 *
 *-------------------------------------------------------------------------
 */
#include <gtest/gtest.h>

#include "core/base/error.hpp"
#include "core/invalidation/glob.hpp"
#include "core/invalidation/target.hpp"

namespace cache_ext::invalidation {
namespace {

using Kind = TargetPart::Kind;

/* Written back in a canonical way, to compare parts at a glance. */
std::string
shown(std::string_view text)
{
	Target target = Target::parse(text);
	std::string out;

	for (const TargetPart &part : target.parts())
	{
		switch (part.kind)
		{
		case Kind::kLiteral:
			out += "<" + part.text + ">";
			continue;
		case Kind::kEither:
			out += "[" + part.text;
			break;
		case Kind::kOld:
			out += "[OLD " + part.text;
			break;
		case Kind::kNew:
			out += "[NEW " + part.text;
			break;
		}
		out += part.has_substitute ? "=" + part.substitute + "]" : "]";
	}
	return out;
}

TEST(Target, NamesLiteralsAndColumns)
{
	EXPECT_EQ(shown("vendor:{vendor_id}:snapshot"), "<vendor:>[vendor_id]<:snapshot>");
	EXPECT_EQ(shown("{old.a}{new.b}"), "[OLD a][NEW b]");
	EXPECT_EQ(shown("{a|none}x{old.b|}"), "[a=none]<x>[OLD b=]");
	EXPECT_EQ(shown("bags"), "<bags>");
	EXPECT_EQ(shown(""), "");
	EXPECT_EQ(shown("{Größe}"), "[Größe]");
}

TEST(Target, TakesDoubledBracesAsBraces)
{
	EXPECT_EQ(shown("{{\"id\":{id}}}"), "<{\"id\":>[id]<}>");
	EXPECT_EQ(shown("{a|{{}}}"), "[a={}]");
}

TEST(Target, ReachesEveryColumnByQuoting)
{
	EXPECT_EQ(shown("{\"old.x\"}"), "[old.x]");
	EXPECT_EQ(shown("{new.\"a|b\"\"}\"|s}"), "[NEW a|b\"}=s]");
}

std::string
position_of_error(std::string_view text)
{
	try
	{
		Target::parse(text);
	}
	catch (const Error &error)
	{
		EXPECT_STREQ(error.state().code, "22023");
		return error.detail();
	}
	return "no error";
}

TEST(Target, SaysWhereItIsWrong)
{
	EXPECT_EQ(position_of_error("ab{c"), "It is at position 3.");
	EXPECT_EQ(position_of_error("ab}c"), "It is at position 3.");
	EXPECT_EQ(position_of_error("a{}"), "It is at position 3.");
	EXPECT_EQ(position_of_error("a{b{c}}"), "It is at position 4.");
	EXPECT_EQ(position_of_error("äö{\"x"), "It is at position 3.");
	EXPECT_EQ(position_of_error("{\"x\"y}"), "It is at position 5.");
	EXPECT_EQ(position_of_error("{a|b{c}"), "It is at position 5.");
	EXPECT_EQ(position_of_error("{a|b}}"), "It is at position 1.");
}

TEST(Target, WidensToAPatternThatMatchesWhateverItCanBecome)
{
	EXPECT_EQ(Target::parse("a*b:{x}:{y}{z}").widened(false), "a\\*b:*:*");
	EXPECT_EQ(Target::parse("a*b:{x}").widened(true), "a*b:*");
	EXPECT_TRUE(glob_match(Target::parse("v[{x}]").widened(false), "v[7]"));
	EXPECT_FALSE(glob_match(Target::parse("v[{x}]").widened(false), "v7"));
}

} /* namespace */
} /* namespace cache_ext::invalidation */
