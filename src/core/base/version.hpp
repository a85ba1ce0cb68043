/*-------------------------------------------------------------------------
 *
 * version.hpp
 *		Versions of the library and of the objects that its scripts have made.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <string_view>

namespace cache_ext {

/* The version of this library. */
std::string_view library_version();

/* The oldest objects that it works with. */
std::string_view oldest_objects();

/* Less than, equal to or greater than 0; numbers between dots count as numbers. */
int compare_versions(std::string_view left, std::string_view right);

enum class Fit
{
	kFits,
	kObjectsTooOld,
	kLibraryTooOld
};

/* A library works with objects from the oldest that it knows up to its own version. */
Fit fit_of_objects(std::string_view objects, std::string_view oldest, std::string_view library);

} /* namespace cache_ext */
