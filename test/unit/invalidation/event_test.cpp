/*-------------------------------------------------------------------------
 *
 * event_test.cpp
 *		The event has the published form, whatever the names contain.
 *
 *-------------------------------------------------------------------------
 */
#include <gtest/gtest.h>

#include "core/invalidation/event.hpp"

namespace cache_ext::invalidation {
namespace {

TEST(Event, HasThePublishedForm)
{
	Event event;

	event.database = "shop";
	event.epoch = 7;
	event.seq = 1234;
	event.xid = 98765;
	event.lsn = 0x16B3748;
	event.at_us = 1774062960123456;
	event.keys = {"analytics:7"};
	event.tags = {"vendor:7"};
	EXPECT_EQ(encode_event(event),
	          "{\"v\":1,\"database\":\"shop\",\"epoch\":7,\"seq\":1234,\"xid\":\"98765\","
	          "\"lsn\":\"0/16B3748\",\"at\":\"2026-03-21T03:16:00.123Z\","
	          "\"keys\":[\"analytics:7\"],\"tags\":[\"vendor:7\"],\"patterns\":[],\"all\":false}");
}

TEST(Event, ListsNamesInOrder)
{
	Event event;
	std::string json;

	event.patterns = {"a*", "b*"};
	event.all = true;
	event.lsn = 0xABCDEF0123456789;
	json = encode_event(event);
	EXPECT_NE(json.find("\"patterns\":[\"a*\",\"b*\"],\"all\":true}"), std::string::npos);
	EXPECT_NE(json.find("\"lsn\":\"ABCDEF01/23456789\""), std::string::npos);
}

std::string
quoted(std::string_view text)
{
	std::string out;

	append_json_string(out, text);
	return out;
}

TEST(Event, QuotesWhatJsonNeedsQuoted)
{
	EXPECT_EQ(quoted("a\"b\\c"), "\"a\\\"b\\\\c\"");
	EXPECT_EQ(quoted(std::string_view("\0\n\x1f", 3)), "\"\\u0000\\u000a\\u001f\"");
	EXPECT_EQ(quoted("Größe €😀"), "\"Größe €😀\"");
}

TEST(Event, IsAlwaysUtf8)
{
	EXPECT_EQ(quoted("a\xff"
	                 "b"),
	          "\"a\xef\xbf\xbd"
	          "b\"");
	EXPECT_EQ(quoted("\xc3"), "\"\xef\xbf\xbd\"");
	EXPECT_EQ(quoted("\xc0\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\"");
	EXPECT_EQ(quoted("\xed\xa0\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
}

} /* namespace */
} /* namespace cache_ext::invalidation */
