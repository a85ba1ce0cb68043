/*-------------------------------------------------------------------------
 *
 * tree.hpp
 *		Walking and rewriting the server's expression trees from C++.
 *
 * Before PostgreSQL 16 the callbacks were declared without parameters, which
 * C++ reads as "takes none"; the casts live here and nowhere else.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "pg/server.hpp"

extern "C" {
#include "nodes/nodeFuncs.h"
}

namespace cache_ext::pg {

template <typename Context> using Mutator = Node *(*) (Node *, Context *);

template <typename Context> using Walker = bool (*)(Node *, Context *);

template <typename Context>
Node *
mutate_children(Node *node, Mutator<Context> mutator, Context *context)
{
	auto erased = reinterpret_cast<void (*)()>(mutator);

#if PG_VERSION_NUM >= 160000
	return expression_tree_mutator_impl(node, reinterpret_cast<tree_mutator_callback>(erased),
	                                    context);
#else
	return expression_tree_mutator(node, reinterpret_cast<Node *(*) ()>(erased), context);
#endif
}

template <typename Context>
Query *
mutate_query(Query *query, Mutator<Context> mutator, Context *context)
{
	auto erased = reinterpret_cast<void (*)()>(mutator);

#if PG_VERSION_NUM >= 160000
	return query_tree_mutator_impl(query, reinterpret_cast<tree_mutator_callback>(erased), context,
	                               0);
#else
	return query_tree_mutator(query, reinterpret_cast<Node *(*) ()>(erased), context, 0);
#endif
}

template <typename Context>
bool
walk_children(Node *node, Walker<Context> walker, Context *context)
{
	auto erased = reinterpret_cast<void (*)()>(walker);

#if PG_VERSION_NUM >= 160000
	return expression_tree_walker_impl(node, reinterpret_cast<tree_walker_callback>(erased),
	                                   context);
#else
	return expression_tree_walker(node, reinterpret_cast<bool (*)()>(erased), context);
#endif
}

} /* namespace cache_ext::pg */
