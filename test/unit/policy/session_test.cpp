/*-------------------------------------------------------------------------
 *
 * session_test.cpp
 *		A session's life and its cookie say the same, and nothing else in its JSON
 *		is touched.
 *
 *-------------------------------------------------------------------------
 */
#include <gtest/gtest.h>

#include <set>

#include "core/base/error.hpp"
#include "core/policy/iso_time.hpp"
#include "core/policy/json_text.hpp"
#include "core/policy/session_life.hpp"

namespace cache_ext::policy {
namespace {

constexpr int64_t kNow = 1795230960123; /* 2026-11-21T03:16:00.123Z */
constexpr int64_t kDay = 24 * 3600 * 1000;

const std::string kExpress =
    R"({"cookie":{"originalMaxAge":3600000,"expires":"2026-11-21T04:00:00.000Z","secure":false,"httpOnly":true,"path":"/"},"userId":7,"note":"a \"b\", {c}"})";
const std::string kBrowser =
    R"({"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"passport":{"user":"u-1"}})";

TEST(IsoTime, IsWrittenAndReadAsJavaScriptDoes)
{
	EXPECT_EQ(format_iso_time(kNow), "2026-11-21T03:16:00.123Z");
	EXPECT_EQ(format_iso_time(0), "1970-01-01T00:00:00.000Z");
	EXPECT_EQ(format_iso_time(-1), "1969-12-31T23:59:59.999Z");
	EXPECT_EQ(format_iso_time(8640000000000000), "+275760-09-13T00:00:00.000Z");
	EXPECT_EQ(format_iso_time(-62198755200000), "-000001-01-01T00:00:00.000Z");
	for (int64_t ms = -9000000000000000; ms < 9000000000000000; ms += 7777777777777)
		EXPECT_EQ(parse_iso_time(format_iso_time(ms)), ms);
	EXPECT_EQ(parse_iso_time("2026-11-21T05:16:00.1234+02:00"), kNow);
	EXPECT_EQ(parse_iso_time("2026-11-20T21:16:00.123-06:00"), kNow);
	EXPECT_EQ(parse_iso_time("2024-02-29T00:00:00Z"), 1709164800000);
	for (const char *wrong :
	     {"", "x", "2026-11-21", "2026-11-21T03:16:00", "2026-13-01T00:00:00Z",
	      "2026-02-29T00:00:00Z", "2026-11-21T24:00:00Z", "2026-11-21T03:16:00.Z",
	      "2026-11-21T03:16:00Zx", "2026-11-21 03:16:00Z", "2026-11-21T03:16:00+2:00"})
		EXPECT_FALSE(parse_iso_time(wrong)) << wrong;
}

TEST(JsonText, FindsWhatAPathLeadsTo)
{
	EXPECT_TRUE(has_field(kExpress, "userId", "7"));
	EXPECT_TRUE(has_field(kExpress, "note", "a \"b\", {c}"));
	EXPECT_TRUE(has_field(kBrowser, "passport.user", "u-1"));
	EXPECT_TRUE(has_field(kExpress, "cookie.secure", "false"));
	EXPECT_FALSE(has_field(kExpress, "userId", "70"));
	EXPECT_FALSE(has_field(kExpress, "user", "7"));
	EXPECT_FALSE(has_field(kBrowser, "passport", "u-1"));
	EXPECT_FALSE(has_field(kBrowser, "passport.user.x", "u-1"));
	EXPECT_FALSE(has_field(kBrowser, "cookie.expires", "null"));
	EXPECT_FALSE(has_field(R"({"a":{"userId":7}})", "userId", "7")) << "only at the top";
	EXPECT_FALSE(has_field(R"(["userId",7])", "userId", "7"));
	EXPECT_TRUE(has_field(R"({"a.b":"x"})", "a.b", "x")) << "a name with a dot in it";
	EXPECT_TRUE(has_field(R"( { "a" : 1 , "a" : 2 } )", "a", "2")) << "the last one counts";
	EXPECT_FALSE(has_field(R"({"a":1,"a":2})", "a", "1"));
	EXPECT_TRUE(
	    has_field(R"({"\u0061":"\u00fc\ud83d\ude00\n"})", "a", "\xc3\xbc\xf0\x9f\x98\x80\n"));
	EXPECT_EQ(member_names(kExpress), (std::vector<std::string>{"cookie", "userId", "note"}));
	EXPECT_EQ(member_names("[1]"), std::vector<std::string>{});
}

TEST(JsonText, NumbersAreWhatJsonbShows)
{
	const std::pair<const char *, const char *> cases[] = {
	    {"7", "7"},          {"7.0", "7.0"},       {"-0", "0"},
	    {"-0.0", "0.0"},     {"1e3", "1000"},      {"1.5E2", "150"},
	    {"1.50e+1", "15.0"}, {"1.5e-3", "0.0015"}, {"-12e-1", "-1.2"},
	    {"1E0", "1"},        {"0.5e1", "5"},       {"1e21", "1000000000000000000000"},
	    {"0e5", "0"},        {"10", "10"},         {"-100.25", "-100.25"},
	    {"0.001e2", "0.1"}};

	for (const auto &[written, shown] : cases)
		EXPECT_EQ(scalar_text(written), shown) << written;
	for (const char *none : {"", "-", ".5", "1e", "1x", "null", "{}", "[]", "\"", "1e999999999"})
		EXPECT_FALSE(scalar_text(none)) << none;
}

TEST(JsonText, NothingBreaksOnWhatIsCutShort)
{
	for (const std::string &json :
	     {kExpress, kBrowser, std::string(R"({"a":[1,{"b":"\u00"}],"c":"\)")})
		for (size_t length = 0; length <= json.size(); ++length)
			for (size_t begin = 0; begin < length; begin += 5)
			{
				std::string_view cut = std::string_view(json).substr(begin, length - begin);

				(void) has_field(cut, "cookie.expires", "x");
				(void) member_names(cut);
				(void) life_when_touched(cut, 5, 7, kNow);
			}
}

TEST(SessionLife, IsThatOfItsCookieElseTheDefault)
{
	SessionLife life = life_when_set(kExpress, 0, kDay, kNow);

	EXPECT_EQ(life.ms, 2639877);
	EXPECT_EQ(life.json, kExpress);
	EXPECT_EQ(life_when_set(kBrowser, 0, kDay, kNow).ms, kDay);
	EXPECT_EQ(life_when_set(kBrowser, 0, kDay, kNow).json, kBrowser);
	EXPECT_EQ(life_when_set(R"({"userId":7})", 0, kDay, kNow).ms, kDay);
	EXPECT_EQ(life_when_set(R"({"cookie":{"expires":false}})", 0, kDay, kNow).ms, kDay);
	EXPECT_EQ(life_when_set(R"({"cookie":{"expires":1795230961000}})", 0, kDay, kNow).ms, 877);
	EXPECT_LE(life_when_set(kExpress, 0, kDay, kNow + kDay).ms, 0) << "its cookie is over";
	for (const char *wrong : {R"({"cookie":{"expires":"Sat, 21 Nov 2026 04:00:00 GMT"}})",
	                          R"({"cookie":{"expires":true}})", R"({"cookie":{"expires":{}}})"})
		EXPECT_THROW(life_when_set(wrong, 0, kDay, kNow), Error) << wrong;
}

TEST(SessionLife, ALifeThatIsAskedForIsWrittenToTheCookieAndNothingElseIs)
{
	SessionLife life = life_when_set(kExpress, 1000, kDay, kNow);

	EXPECT_EQ(life.ms, 1000);
	EXPECT_EQ(
	    life.json,
	    R"({"cookie":{"originalMaxAge":1000,"expires":"2026-11-21T03:16:01.123Z","secure":false,"httpOnly":true,"path":"/"},"userId":7,"note":"a \"b\", {c}"})");
	EXPECT_EQ(life_when_set(kBrowser, 1000, kDay, kNow).json, kBrowser)
	    << "it ends with the browser";
	EXPECT_EQ(life_when_set(R"({"userId":7})", 1000, kDay, kNow).json, R"({"userId":7})");
	EXPECT_EQ(life_when_set(R"({"cookie":{"expires":"garbage"}})", 1000, kDay, kNow).json,
	          R"({"cookie":{"expires":"2026-11-21T03:16:01.123Z"}})");
	EXPECT_EQ(life_when_set(kExpress, 0, kDay, kNow).ms,
	          life_when_set(life_when_set(kExpress, 2639877, kDay, kNow).json, 0, kDay, kNow).ms);
}

TEST(SessionLife, ATouchGivesTheFullLifeAnewAndNeverLess)
{
	SessionLife life = life_when_touched(kExpress, 500, kDay, kNow);

	EXPECT_EQ(life.ms, 3600000);
	EXPECT_EQ(life_when_set(life.json, 0, kDay, kNow).ms, 3600000);
	EXPECT_NE(life.json.find(R"("originalMaxAge":3600000)"), std::string::npos);
	EXPECT_EQ(life_when_touched(kExpress, 7200000, kDay, kNow).ms, 7200000);
	EXPECT_EQ(life_when_touched(kBrowser, 500, kDay, kNow).ms, kDay);
	EXPECT_EQ(life_when_touched(kBrowser, 500, kDay, kNow).json, kBrowser);
	EXPECT_EQ(life_when_touched(R"({"a":1})", 3 * kDay, kDay, kNow).ms, 3 * kDay);
	EXPECT_EQ(life_when_touched(R"({"cookie":{"originalMaxAge":1e300}})", 1, kDay, kNow).ms,
	          kMaxLifeMs);
}

TEST(SessionId, IsOfThirtyTwoLettersThatAUrlTakes)
{
	std::string bytes;
	std::set<char> letters;

	EXPECT_EQ(session_id(std::string(24, '\0')), std::string(32, 'A'));
	EXPECT_EQ(session_id(std::string(24, '\xff')), std::string(32, '_'));
	EXPECT_EQ(session_id("\x01\x02\x03\xf9\xe8\xfb"), "AQID-ej7");
	for (int i = 0; i < 256; ++i)
		bytes.push_back(static_cast<char>(i * 151));
	for (char c : session_id(bytes))
		letters.insert(c);
	EXPECT_GT(letters.size(), 55u);
}

} /* namespace */
} /* namespace cache_ext::policy */
