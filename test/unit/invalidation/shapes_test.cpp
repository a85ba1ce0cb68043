#include "core/invalidation/shapes.hpp"

#include <deque>

#include <gtest/gtest.h>

#include "core/invalidation/glob.hpp"

namespace cache_ext::invalidation {
namespace {

/* Names, and what becomes of them. */
class ShapesTest : public testing::Test
{
  protected:
	void add(const std::string &name) { names_.push_back(name); }
	void add_numbered(const std::string &before, int count, const std::string &after = "")
	{
		for (int i = 0; i < count; ++i)
			add(before + std::to_string(i) + after);
	}

	Shapes settled(Shapes::Names kind = Shapes::Names::kPlain, size_t most = 16)
	{
		Shapes shapes(kind);

		for (const std::string &name : names_)
			shapes.add(name);
		shapes.settle(most, 100);
		return shapes;
	}

	std::deque<std::string> names_;
};

TEST_F(ShapesTest, PartsThatVaryBecomeAsterisks)
{
	add_numbered("user:", 1000, ":name");
	add_numbered("shop:7:order:", 1000);
	for (int i = 0; i < 1000; ++i)
		add("post:a" + std::to_string(i) + ":" + std::to_string(i % 500));

	Shapes shapes = settled();

	EXPECT_EQ(shapes.pattern_of("user:5:name"), "user:*:name");
	EXPECT_EQ(shapes.pattern_of("shop:7:order:5"), "shop:7:order:*");
	EXPECT_EQ(shapes.pattern_of("post:a5:5"), "post:*:*");
	EXPECT_EQ(shapes.pattern_of("user:5:cart"), "") << "nobody has named one of these";
	EXPECT_EQ(shapes.pattern_of("user:5"), "");
}

TEST_F(ShapesTest, NamesWithoutColonsHaveOtherSeparators)
{
	add_numbered("product_", 1000, "_details");
	add_numbered("page/", 1000);
	add_numbered("item", 1000);

	Shapes shapes = settled();

	EXPECT_EQ(shapes.pattern_of("product_5_details"), "product_*_details");
	EXPECT_EQ(shapes.pattern_of("page/5"), "page/*");
	EXPECT_EQ(shapes.pattern_of("item5"), "item*");
}

TEST_F(ShapesTest, NothingIsWidenedToAPatternThatSaysNothing)
{
	add_numbered("", 1000);
	for (int i = 0; i < 1000; ++i)
		add(std::to_string(i) + ":" + std::to_string(i));
	add_numbered(":", 1000);

	Shapes shapes = settled();

	for (const std::string &name : names_)
		EXPECT_EQ(shapes.pattern_of(name), "") << name;
}

TEST_F(ShapesTest, FewNamesStayWhatTheyAre)
{
	add_numbered("user:", 99);
	add_numbered("post:", 1000);

	Shapes shapes = settled();

	EXPECT_EQ(shapes.pattern_of("user:5"), "");
	EXPECT_EQ(shapes.pattern_of("post:5"), "post:*");
}

TEST_F(ShapesTest, SpecialCharactersOfNamesAreEscaped)
{
	add_numbered("a*[x]\\:", 1000);

	Shapes shapes = settled();
	std::string pattern(shapes.pattern_of("a*[x]\\:5"));

	EXPECT_EQ(pattern, "a\\*\\[x\\]\\\\:*");
	EXPECT_FALSE(glob_match(pattern, "abx:5"));
}

TEST_F(ShapesTest, PatternsCoverThePatternsTheyStandFor)
{
	add_numbered("user:", 1000, ":*");
	add_numbered("page:[", 1000, ":x]");
	add_numbered("odd:\\", 1000, ":x");

	Shapes shapes = settled(Shapes::Names::kPatterns);

	EXPECT_EQ(shapes.pattern_of("user:5:*"), "user:*:*");
	EXPECT_EQ(shapes.pattern_of("page:[5:x]"), "");
	EXPECT_EQ(shapes.pattern_of("odd:\\5:x"), "");
}

/* Whatever the names are: few patterns, and each matches the names it stands for. */
TEST_F(ShapesTest, EveryPatternMatchesItsNamesAndThereAreFew)
{
	unsigned random = 1;
	auto draw = [&random](unsigned below) {
		random = random * 1103515245 + 12345;
		return random / 65536 % below;
	};

	for (int i = 0; i < 20000; ++i)
	{
		std::string name;
		unsigned parts = 1 + draw(4);

		for (unsigned part = 0; part < parts; ++part)
			name += (part > 0 ? ":" : "") +
			        std::string(1, static_cast<char>("ab*?[]\\0"[draw(8)])) +
			        std::to_string(draw(part == 0 ? 3 : 2000));
		add(name);
	}

	Shapes shapes = settled();
	std::map<std::string, size_t, std::less<>> seen;
	size_t covered = 0;

	for (const std::string &name : names_)
	{
		std::string pattern(shapes.pattern_of(name));

		if (pattern.empty())
			continue;
		EXPECT_TRUE(glob_match(pattern, name)) << pattern << " " << name;
		++seen[pattern];
		++covered;
	}
	EXPECT_LE(seen.size(), 16u);
	EXPECT_GT(covered, names_.size() / 8);
	for (const auto &[pattern, count] : seen)
		EXPECT_GE(count, 100u) << pattern;
}

} /* namespace */
} /* namespace cache_ext::invalidation */
