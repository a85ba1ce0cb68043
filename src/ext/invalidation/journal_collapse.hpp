/*-------------------------------------------------------------------------
 *
 * journal_collapse.hpp
 *		A journal that stays bounded however many names a transaction gives.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

namespace cache_ext::invalidation {

/*
 * To be called after names that somebody gave one by one were collected.  When
 * there are very many, coarser ones take their places.  May raise.
 */
void bound_journal();

} /* namespace cache_ext::invalidation */
