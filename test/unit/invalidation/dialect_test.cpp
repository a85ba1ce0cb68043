#include "core/invalidation/dialect.hpp"

#include <gtest/gtest.h>

#include "core/base/error.hpp"
#include "core/invalidation/target.hpp"

namespace cache_ext::invalidation {
namespace {

TEST(Dialect, NamesAreWhatTheLibrariesStore)
{
	struct
	{
		const char *dialect;
		DialectOptions options;
		const char *prefix;
	} const cases[] = {
	    {"plain", {}, ""},
	    {"plain", {{"prefix", "shop:"}}, "shop:"},
	    {"ioredis", {{"key_prefix", "app:"}}, "app:"},
	    {"django", {}, ":1:"},
	    {"django", {{"version", "2"}, {"key_prefix", "shop"}}, "shop:2:"},
	    {"bentocache", {}, "bentocache:"},
	    {"bentocache", {{"prefix", "b::"}, {"namespace", "users"}}, "b:users:"},
	    {"bentocache", {{"prefix", ""}}, ""},
	    {"fusioncache", {}, "v2:"},
	    {"fusioncache", {{"instance", "i:"}, {"key_prefix", "k:"}}, "i:v2:k:"},
	    {"fusioncache", {{"version", ""}}, ""},
	    {"laravel", {{"prefix", "laravel_cache_"}}, "laravel_cache_"},
	    {"laravel", {{"prefix", "shop_cache"}, {"version", "10.48"}}, "shop_cache:"},
	    {"laravel", {{"version", "10"}}, ""},
	    {"laravel",
	     {{"connection_prefix", "shop_database_"}, {"prefix", "shop_cache_"}},
	     "shop_database_shop_cache_"},
	    {"keyv", {}, "keyv::keyv:"},
	    {"keyv", {{"namespace", "shop"}, {"key_prefix", ""}}, "shop::"},
	    {"keyv", {{"namespace", ""}}, ""},
	    {"rails", {{"namespace", "shop"}}, "shop:"},
	    {"spring", {{"cache", "vendors"}}, "vendors::"},
	    {"connect", {}, "sess:"},
	};

	for (const auto &one : cases)
		EXPECT_EQ(read_dialect(one.dialect, one.options).prefix, one.prefix) << one.dialect;
}

TEST(Dialect, UnknownNamesAreRefused)
{
	EXPECT_THROW(read_dialect("memcached", {}), Error);
	EXPECT_THROW(read_dialect("django", {{"prefix", "x"}}), Error);
	EXPECT_THROW(read_dialect("laravel", {{"version", "x"}}), Error);
	EXPECT_THROW(read_dialect("laravel", {{"version", "1x.2"}}), Error);
	EXPECT_THROW(read_dialect("laravel", {{"version", ""}}), Error);
	EXPECT_THROW(read_dialect("plain", {{"prefix", "a\x1f"}}), Error);
	EXPECT_THROW(read_dialect("plain", {{"prefix", std::string(257, 'a')}}), Error);
}

TEST(Dialect, PrefixesAreTakenLiterally)
{
	EXPECT_EQ(Target::parse(key_of_target("{a}*", "k")).literal(), "{a}*k");
	EXPECT_EQ(Target::parse(pattern_of_target("{a}*", "k*")).literal(), "{a}\\*k*");
	EXPECT_EQ(Target::parse(tag_of_target("{a}*", "{x}")).widened(false), "{a}\\*\x1f*");
}

} /* namespace */
} /* namespace cache_ext::invalidation */
