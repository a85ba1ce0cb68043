/*-------------------------------------------------------------------------
 *
 * memory.hpp
 *		C++ objects owned by memory contexts.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <new>
#include <string_view>
#include <type_traits>
#include <utility>

#include "pg/server.hpp"

namespace cache_ext::pg {

/*
 * Construct a T in the context; its destructor runs when the context is reset
 * or deleted, so also on abort.  Such a destructor neither raises nor throws.
 */
template <typename T, typename... Args>
T *
make_in(MemoryContext context, Args &&...args)
{
	struct Owned
	{
		MemoryContextCallback callback;
		alignas(T) char storage[sizeof(T)];
	};
	auto *owned = static_cast<Owned *>(MemoryContextAlloc(context, sizeof(Owned)));
	T *object = new (owned->storage) T(std::forward<Args>(args)...);

	if constexpr (!std::is_trivially_destructible_v<T>)
	{
		owned->callback.func = [](void *arg) { static_cast<T *>(arg)->~T(); };
		owned->callback.arg = object;
		MemoryContextRegisterResetCallback(context, &owned->callback);
	}
	return object;
}

/* The bytes of a detoasted text or bytea, valid as long as the datum is. */
inline std::string_view
view(const void *varlena) noexcept
{
	return {VARDATA_ANY(varlena), static_cast<size_t>(VARSIZE_ANY_EXHDR(varlena))};
}

} /* namespace cache_ext::pg */
