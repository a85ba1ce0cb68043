/*-------------------------------------------------------------------------
 *
 * guard.cpp
 *		Carrying errors across the C and C++ boundary; see guard.hpp.
 *
 *-------------------------------------------------------------------------
 */
#include "pg/guard.hpp"

namespace cache_ext::pg {

void
Report::set(int state, const char *text) noexcept
{
	edata = nullptr;
	sqlstate = state;
	strlcpy(message, text, sizeof(message));
	detail[0] = '\0';
	hint[0] = '\0';
}

void
Report::describe(const Error &error) noexcept
{
	const char *code = error.state().code;

	set(MAKE_SQLSTATE(code[0], code[1], code[2], code[3], code[4]), error.message().c_str());
	strlcpy(detail, error.detail().c_str(), sizeof(detail));
	strlcpy(hint, error.hint().c_str(), sizeof(hint));
}

void
raise(const Report &report)
{
	if (report.edata != nullptr)
		ReThrowError(report.edata);

	ereport(ERROR, (errcode(report.sqlstate), errmsg_internal("%s", report.message),
	                report.detail[0] != '\0' ? errdetail_internal("%s", report.detail) : 0,
	                report.hint[0] != '\0' ? errhint("%s", report.hint) : 0));
	pg_unreachable();
}

/* Copying the error can itself run out of memory; that error is then the one that travels. */
static ErrorData *
copy_pending_error(MemoryContext context)
{
	ErrorData *volatile copied = nullptr;

	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		copied = CopyErrorData();
		FlushErrorState();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(ErrorContext);
		FlushErrorState();
		copied = nullptr;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return copied;
}

void
throw_pending_error(MemoryContext context)
{
	ErrorData *copied = copy_pending_error(context);

	if (copied == nullptr)
		throw std::bad_alloc();
	throw PgError(copied);
}

} /* namespace cache_ext::pg */
