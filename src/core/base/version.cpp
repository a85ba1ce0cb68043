/*-------------------------------------------------------------------------
 *
 * version.cpp
 *		See version.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "core/base/version.hpp"

#include <algorithm>

namespace cache_ext {

/*
 * What stands before each number lets a test find it in the library's file and
 * pretend that it is another version; volatile, so that nothing is computed from
 * it in advance.
 */
#define LIBRARY_MARK "cache_ext library "
#define OLDEST_MARK "cache_ext works with objects from "

static const volatile char kLibrary[] = LIBRARY_MARK "1.0";
static const volatile char kOldest[] = OLDEST_MARK "1.0";

static std::string_view
behind(const volatile char *text, size_t mark)
{
	return {const_cast<const char *>(text) + mark};
}

std::string_view
library_version()
{
	return behind(kLibrary, sizeof(LIBRARY_MARK) - 1);
}

std::string_view
oldest_objects()
{
	return behind(kOldest, sizeof(OLDEST_MARK) - 1);
}

/* The first component, which is taken off the text. */
static std::string_view
take_component(std::string_view *text)
{
	size_t end = std::min(text->find('.'), text->size());
	std::string_view component = text->substr(0, end);

	text->remove_prefix(std::min(end + 1, text->size()));
	if (!component.empty() && component.find_first_not_of("0123456789") == component.npos)
		component.remove_prefix(std::min(component.find_first_not_of('0'), component.size()));
	return component;
}

static bool
is_number(std::string_view component)
{
	return component.find_first_not_of("0123456789") == component.npos;
}

int
compare_versions(std::string_view left, std::string_view right)
{
	while (!left.empty() || !right.empty())
	{
		std::string_view one = take_component(&left);
		std::string_view other = take_component(&right);

		if (is_number(one) && is_number(other) && one.size() != other.size())
			return one.size() < other.size() ? -1 : 1;
		if (int order = one.compare(other))
			return order;
	}
	return 0;
}

Fit
fit_of_objects(std::string_view objects, std::string_view oldest, std::string_view library)
{
	if (compare_versions(objects, oldest) < 0)
		return Fit::kObjectsTooOld;
	return compare_versions(objects, library) > 0 ? Fit::kLibraryTooOld : Fit::kFits;
}

} /* namespace cache_ext */
