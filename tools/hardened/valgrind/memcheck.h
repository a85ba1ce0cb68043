/*
 * What PostgreSQL asks of Valgrind, asked of AddressSanitizer.
 *
 * A server built with USE_VALGRIND tells which bytes of its memory contexts are
 * allocated, and which buffers are pinned.  With this file in the place of
 * Valgrind's own header it tells AddressSanitizer, at a small part of the cost:
 * an extension built with -fsanitize=address then cannot read what pfree, a
 * reset context or a released buffer has left, nor a byte beyond an allocation.
 *
 * The functions are weak: without the sanitizer's library nothing happens.
 */
#pragma once

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif
extern void __asan_poison_memory_region(void const volatile *addr, size_t size)
    __attribute__((weak));
extern void __asan_unpoison_memory_region(void const volatile *addr, size_t size)
    __attribute__((weak));
#ifdef __cplusplus
}
#endif

#define VALGRIND_MAKE_MEM_NOACCESS(addr, size)                                                     \
	(__asan_poison_memory_region ? __asan_poison_memory_region((addr), (size)) : (void) 0)
#define VALGRIND_MAKE_MEM_DEFINED(addr, size)                                                      \
	(__asan_unpoison_memory_region ? __asan_unpoison_memory_region((addr), (size)) : (void) 0)
#define VALGRIND_MAKE_MEM_UNDEFINED(addr, size) VALGRIND_MAKE_MEM_DEFINED(addr, size)
#define VALGRIND_MEMPOOL_ALLOC(context, addr, size) VALGRIND_MAKE_MEM_DEFINED(addr, size)
#define VALGRIND_MEMPOOL_CHANGE(context, old, addr, size) VALGRIND_MAKE_MEM_DEFINED(addr, size)

/* Freed chunks: the server clobbers them, and that says NOACCESS. */
#define VALGRIND_MEMPOOL_FREE(context, addr) ((void) 0)
#define VALGRIND_MEMPOOL_TRIM(context, addr, size) ((void) 0)
#define VALGRIND_CREATE_MEMPOOL(context, redzones, zeroed) ((void) 0)
#define VALGRIND_DESTROY_MEMPOOL(context) ((void) 0)
#define VALGRIND_MOVE_MEMPOOL(from, to) ((void) 0)

#define VALGRIND_CHECK_MEM_IS_DEFINED(addr, size) ((void) 0)
#define VALGRIND_CHECK_MEM_IS_ADDRESSABLE(addr, size) ((void) 0)
#define VALGRIND_DISABLE_ERROR_REPORTING ((void) 0)
#define VALGRIND_ENABLE_ERROR_REPORTING ((void) 0)
#define VALGRIND_COUNT_ERRORS 0
#define VALGRIND_PRINTF(...) ((void) 0)
#define VALGRIND_PRINTF_BACKTRACE(...) ((void) 0)
#define RUNNING_ON_VALGRIND 0
