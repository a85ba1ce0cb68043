/*-------------------------------------------------------------------------
 *
 * memory_scope.hpp
 *		Whose entries of the memory tier this session may see.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "pg/server.hpp"

namespace cache_ext::cache {

/*
 * Tells apart databases, and installations of the extension in one: what was
 * changed while it was not installed nobody has noticed.  May throw.
 */
uint64 memory_scope();

/* The database of a scope. */
inline Oid
database_of_scope(uint64 scope) noexcept
{
	return static_cast<Oid>(scope >> 32);
}

} /* namespace cache_ext::cache */
