/*-------------------------------------------------------------------------
 *
 * guard.hpp
 *		The two doors between PostgreSQL's errors and C++ exceptions.
 *
 * guard(fn) faces outward: whatever the server calls runs its C++ inside one,
 * so no exception enters a C frame.  call(fn) faces inward: a server call that
 * can raise runs inside one while a C++ object with a destructor is alive, so
 * no longjmp skips it.
 *
 * Code that keeps only plain data in its frames and everything else in memory
 * contexts (see memory.hpp) may call the server directly inside a guard: the
 * longjmp then passes over nothing that matters.  The hot paths do that.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <csetjmp>
#include <exception>
#include <new>
#include <type_traits>

#include "core/base/error.hpp"
#include "pg/server.hpp"

namespace cache_ext::pg {

/* A server error on its way through C++ frames.  Deliberately no std::exception. */
class PgError
{
  public:
	explicit PgError(ErrorData *edata) noexcept : edata_(edata) {}
	ErrorData *edata() const noexcept { return edata_; }

  private:
	ErrorData *edata_;
};

/* What guard() has caught, in fixed buffers: filling it can neither throw nor raise. */
struct Report
{
	ErrorData *edata;
	int sqlstate;
	char message[512];
	char detail[512];
	char hint[512];

	void set(int state, const char *text) noexcept;
	void describe(const Error &error) noexcept;
};

/* Raises the report as a server error. */
[[noreturn]] void raise(const Report &report);

/* Turns the server's pending error into a PgError; context is where its data goes. */
[[noreturn]] void throw_pending_error(MemoryContext context);

/* Puts the server's error handlers back however the scope is left. */
class HandlerScope
{
  public:
	HandlerScope() noexcept : stack_(PG_exception_stack), context_(error_context_stack) {}
	~HandlerScope()
	{
		PG_exception_stack = stack_;
		error_context_stack = context_;
	}
	HandlerScope(const HandlerScope &) = delete;
	HandlerScope &operator=(const HandlerScope &) = delete;

  private:
	sigjmp_buf *stack_;
	ErrorContextCallback *context_;
};

template <typename Fn>
auto
call(Fn &&fn) -> std::invoke_result_t<Fn &>
{
	using Result = std::invoke_result_t<Fn &>;
	static_assert(std::is_void_v<Result> || std::is_trivially_copyable_v<Result>);

	MemoryContext context = CurrentMemoryContext;
	{
		HandlerScope scope;
		sigjmp_buf landing;

		if (sigsetjmp(landing, 0) == 0)
		{
			PG_exception_stack = &landing;
			return fn();
		}
	}
	throw_pending_error(context);
}

template <typename Fn>
auto
guard(Fn &&fn) -> std::invoke_result_t<Fn &>
{
	ErrorContextCallback *context = error_context_stack;
	Report report;

	report.edata = nullptr;
	try
	{
		return fn();
	}
	catch (const PgError &error)
	{
		report.edata = error.edata();
	}
	catch (const Error &error)
	{
		report.describe(error);
	}
	catch (const std::bad_alloc &)
	{
		report.set(ERRCODE_OUT_OF_MEMORY, "out of memory");
	}
	catch (const std::exception &error)
	{
		report.set(ERRCODE_INTERNAL_ERROR, error.what());
	}
	catch (...)
	{
		report.set(ERRCODE_INTERNAL_ERROR, "unexpected C++ exception");
	}
	error_context_stack = context; /* an exception has left frames that had pushed theirs */
	raise(report);
}

} /* namespace cache_ext::pg */
