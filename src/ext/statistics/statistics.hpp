/*-------------------------------------------------------------------------
 *
 * statistics.hpp
 *		What the rest of the extension may ask of the statistics engine.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "pg/server.hpp"

namespace cache_ext::statistics {

/*
 * Fold all partial rows that a fresh snapshot sees, in a transaction of its own.
 * Returns how many partial rows were folded, or -1 when somebody keeps folds
 * away.  A statistic whose own error stops it is set aside as broken.
 */
int64 fold_next();

/*
 * Take up one restored statistic or fill one that is not filled, in
 * transactions of its own; what fails is noted as that statistic's trouble.
 */
enum class FillTurn
{
	kNothing, /* none is waiting */
	kDone,    /* there may be more */
	kLater    /* somebody is in the way */
};
FillTurn fill_next();

/* Is there something for fill_next()? */
bool filling_waits();

/*
 * Vacuum the internal tables that folds of so many partial rows have churned, in
 * transactions of its own, and shorten those that are much larger than that; is
 * something left that an old snapshot, or a lock, keeps as it is?
 */
bool vacuum_churned(int64 folded);

} /* namespace cache_ext::statistics */
