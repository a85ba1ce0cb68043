/*-------------------------------------------------------------------------
 *
 * iso_time.cpp
 *		Times as JavaScript writes them into JSON; see iso_time.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "core/policy/iso_time.hpp"

#include <cstdio>

namespace cache_ext::policy {

namespace {

constexpr int64_t kDayMs = 24 * 3600 * 1000;
constexpr int64_t kEraDays = 146097; /* of 400 years */

/* Days since 1970-01-01 in the Gregorian calendar, years counted from March. */
constexpr int64_t
days_of(int64_t year, int64_t month, int64_t day) noexcept
{
	year -= month <= 2 ? 1 : 0;

	int64_t era = (year >= 0 ? year : year - 399) / 400;
	int64_t year_of_era = year - era * 400;
	int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
	int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;

	return era * kEraDays + day_of_era - 719468;
}

constexpr bool
is_leap(int64_t year) noexcept
{
	return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

constexpr int64_t
days_in(int64_t year, int64_t month) noexcept
{
	constexpr int64_t kDays[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

	return kDays[month - 1] + (month == 2 && is_leap(year) ? 1 : 0);
}

/* Takes the text apart from the front. */
class Scanner
{
  public:
	explicit Scanner(std::string_view text) : text_(text) {}

	bool take(char c) noexcept
	{
		if (text_.empty() || text_.front() != c)
			return false;
		text_.remove_prefix(1);
		return true;
	}

	/* A number of exactly so many digits. */
	bool take_number(size_t digits, int64_t *number) noexcept
	{
		if (text_.size() < digits)
			return false;
		*number = 0;
		for (char c : text_.substr(0, digits))
		{
			if (c < '0' || c > '9')
				return false;
			*number = *number * 10 + (c - '0');
		}
		text_.remove_prefix(digits);
		return true;
	}

	/* The digits of a fraction of a second; what is finer than a millisecond is cut off. */
	bool take_fraction(int64_t *ms) noexcept
	{
		size_t digits = 0;

		for (int64_t digit = 0; take_number(1, &digit); ++digits)
			if (digits < 3)
				*ms += digit * (digits == 0 ? 100 : digits == 1 ? 10 : 1);
		return digits > 0;
	}

	bool empty() const noexcept { return text_.empty(); }

  private:
	std::string_view text_;
};

} /* namespace */

std::optional<int64_t>
parse_iso_time(std::string_view text) noexcept
{
	Scanner scanner(text);
	int64_t year, month, day, hour, minute, second;
	int64_t ms = 0;
	int64_t offset_minutes = 0;
	bool negative = scanner.take('-');
	bool wide = negative || scanner.take('+');

	if (!scanner.take_number(wide ? 6 : 4, &year) || !scanner.take('-') ||
	    !scanner.take_number(2, &month) || !scanner.take('-') || !scanner.take_number(2, &day) ||
	    !scanner.take('T') || !scanner.take_number(2, &hour) || !scanner.take(':') ||
	    !scanner.take_number(2, &minute) || !scanner.take(':') || !scanner.take_number(2, &second))
		return std::nullopt;
	if (scanner.take('.') && !scanner.take_fraction(&ms))
		return std::nullopt;
	if (!scanner.take('Z'))
	{
		int64_t hours, minutes;
		bool west = scanner.take('-');

		if ((!west && !scanner.take('+')) || !scanner.take_number(2, &hours) ||
		    !scanner.take(':') || !scanner.take_number(2, &minutes) || hours > 23 || minutes > 59)
			return std::nullopt;
		offset_minutes = (west ? -1 : 1) * (hours * 60 + minutes);
	}
	year = negative ? -year : year;
	if (!scanner.empty() || month < 1 || month > 12 || day < 1 || day > days_in(year, month) ||
	    hour > 23 || minute > 59 || second > 59)
		return std::nullopt;
	return days_of(year, month, day) * kDayMs +
	       ((hour * 60 + minute - offset_minutes) * 60 + second) * 1000 + ms;
}

std::string
format_iso_time(int64_t ms)
{
	int64_t days = ms / kDayMs - (ms % kDayMs < 0 ? 1 : 0);
	int64_t rest = ms - days * kDayMs;
	int64_t shifted = days + 719468;
	int64_t era = (shifted >= 0 ? shifted : shifted - kEraDays + 1) / kEraDays;
	int64_t day_of_era = shifted - era * kEraDays;
	int64_t year_of_era =
	    (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
	int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	int64_t shifted_month = (5 * day_of_year + 2) / 153;
	int64_t day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
	int64_t month = shifted_month + (shifted_month < 10 ? 3 : -9);
	int64_t year = year_of_era + era * 400 + (month <= 2 ? 1 : 0);
	char text[64];

	snprintf(text, sizeof(text),
	         year >= 0 && year <= 9999 ? "%04lld-%02d-%02dT%02d:%02d:%02d.%03dZ"
	                                   : "%+07lld-%02d-%02dT%02d:%02d:%02d.%03dZ",
	         static_cast<long long>(year), static_cast<int>(month), static_cast<int>(day),
	         static_cast<int>(rest / 3600000), static_cast<int>(rest / 60000 % 60),
	         static_cast<int>(rest / 1000 % 60), static_cast<int>(rest % 1000));
	return text;
}

} /* namespace cache_ext::policy */
