/*-------------------------------------------------------------------------
 *
 * envelope_test.cpp
 *		What is written can be read, and nothing else is taken for it.
 *
 *-------------------------------------------------------------------------
 */
#include <gtest/gtest.h>

#include "core/base/error.hpp"
#include "core/cache/envelope.hpp"

namespace cache_ext::cache {
namespace {

Envelope
sample()
{
	Envelope envelope{};

	envelope.token = {{1, 2}, {3, 4}, {5, 6}};
	envelope.audience = {7, 8};
	envelope.by_settings = true;
	envelope.made_at = 9;
	envelope.fresh_ms = 10;
	envelope.key = "shop:vendor:7";
	envelope.tags = {"vendor:7", "", std::string_view("a\0b", 3)};
	envelope.payload = "[{\"x\":1}]";
	return envelope;
}

TEST(Envelope, ComesBackAsItWas)
{
	std::string bytes = encode(sample());
	auto read = decode(bytes);

	ASSERT_TRUE(read);
	EXPECT_EQ(read->token.name_space, (Digest{1, 2}));
	EXPECT_EQ(read->token.incarnation, (Digest{3, 4}));
	EXPECT_EQ(read->token.versions, (Digest{5, 6}));
	EXPECT_EQ(read->audience, (Digest{7, 8}));
	EXPECT_TRUE(read->by_settings);
	EXPECT_EQ(read->made_at, 9u);
	EXPECT_EQ(read->fresh_ms, 10u);
	EXPECT_EQ(read->key, "shop:vendor:7");
	EXPECT_EQ(read->tags, sample().tags);
	EXPECT_EQ(read->payload, "[{\"x\":1}]");
}

TEST(Envelope, MayBeEmpty)
{
	auto read = decode(encode(Envelope{}));

	ASSERT_TRUE(read);
	EXPECT_EQ(read->payload, "");
	EXPECT_EQ(read->audience, kEverybody);
	EXPECT_FALSE(read->by_settings);
}

TEST(Envelope, HasTheDocumentedLayout)
{
	Envelope envelope = sample();

	envelope.tags = {"t"};
	envelope.key = "k";
	envelope.payload = "v";

	std::string zeros7(7, '\0');
	std::string expected = "\xff"
	                       "CXE\x01\x01";

	for (char number = 1; number <= 10; ++number)
		expected += zeros7 + number;
	expected += std::string("\0\0\0\1k\0\1\0\1t\0\0\0\1v", 15);
	EXPECT_EQ(encode(envelope), expected);
}

TEST(Envelope, CutShortIsNone)
{
	std::string bytes = encode(sample());

	for (size_t length = 0; length < bytes.size(); ++length)
		EXPECT_FALSE(decode(std::string_view(bytes).substr(0, length))) << length;
	EXPECT_FALSE(decode(bytes + "x"));
}

TEST(Envelope, LyingLengthsAreNone)
{
	std::string bytes = encode(sample());

	/* Any byte of the lengths may be anything: never a crash, never beyond the end. */
	for (size_t at = 86; at < bytes.size(); ++at)
		for (int value : {0, 1, 0x7f, 0x80, 0xff})
		{
			std::string changed = bytes;

			changed[at] = static_cast<char>(value);
			if (auto read = decode(changed))
			{
				EXPECT_LE(read->payload.size(), bytes.size());
			}
		}
}

TEST(Envelope, OtherVersionsAndFlagsAreLeftAlone)
{
	std::string bytes = encode(sample());

	bytes[4] = 2;
	EXPECT_FALSE(decode(bytes));
	EXPECT_TRUE(looks_like_envelope(bytes));
	bytes[4] = 1;
	bytes[5] = 3;
	EXPECT_FALSE(decode(bytes));
}

TEST(Envelope, ApplicationsValuesAreNone)
{
	for (const char *value : {"", "x", "\xff",
	                          "\xff"
	                          "CX",
	                          "{\"a\":1}", "CXE"})
	{
		EXPECT_FALSE(decode(value));
		EXPECT_FALSE(looks_like_envelope(value));
	}
}

TEST(Envelope, RefusesTagsThatDoNotFit)
{
	Envelope envelope = sample();
	std::string tag(70000, 't');

	envelope.tags = {tag};
	EXPECT_THROW(encode(envelope), Error);
	envelope.tags.assign(70000, "t");
	EXPECT_THROW(encode(envelope), Error);
}

/* Published test values of FNV-1a with 128 bits. */
TEST(Digest, IsTheOneThatIsDocumented)
{
	EXPECT_EQ(Digester().finish().hex(), "6c62272e07bb014262b821756295c58d");
	EXPECT_EQ(Digester().add("a").finish().hex(), "d228cb696f1a8caf78912b704e4a8964");
	EXPECT_EQ(Digester().add("foobar").finish().hex(), "343e1662793c64bf6f0d3597ba446f18");
}

TEST(Digest, ComesBackFromItsBytes)
{
	Digest digest = Digester().add("x").finish();

	EXPECT_EQ(Digest::from_bytes(digest.bytes()), digest);
	EXPECT_EQ(digest.bytes().size(), Digest::kSize);
}

TEST(Token, ChangesWithEachPart)
{
	Digest base = digest_namespace(1, 2, 3, 4, 5);

	EXPECT_EQ(base, digest_namespace(1, 2, 3, 4, 5));
	EXPECT_NE(base, digest_namespace(9, 2, 3, 4, 5));
	EXPECT_NE(base, digest_namespace(1, 9, 3, 4, 5));
	EXPECT_NE(base, digest_namespace(1, 2, 9, 4, 5));
	EXPECT_NE(base, digest_namespace(1, 2, 3, 9, 5));
	EXPECT_NE(base, digest_namespace(1, 2, 3, 4, 9));
	EXPECT_NE(digest_instance("a", "b"), digest_instance("a", "c"));
	EXPECT_NE(digest_instance("a", "b"), digest_instance("c", "b"));
	EXPECT_NE(digest_instance("ab", "c"), digest_instance("a", "bc"));

	Digest place = digest_incarnation(base, 0, "p:");

	EXPECT_NE(place, digest_incarnation(digest_instance("a", "b"), 0, "p:"));
	EXPECT_NE(place, digest_incarnation(base, 1, "p:"));
	EXPECT_NE(place, digest_incarnation(base, 0, "q:"));
}

TEST(Token, VersionsOfOtherBucketsAreOthers)
{
	std::string nonce(kNonceSize, 'n');
	std::string other(kNonceSize, 'o');

	EXPECT_NE(VersionDigester().add(1, nonce).finish(), VersionDigester().add(2, nonce).finish());
	EXPECT_NE(VersionDigester().add(1, nonce).finish(), VersionDigester().add(1, other).finish());
	EXPECT_NE(VersionDigester().add(1, nonce).add(2, other).finish(),
	          VersionDigester().add(1, other).add(2, nonce).finish());
}

} /* namespace */
} /* namespace cache_ext::cache */
