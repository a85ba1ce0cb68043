/*-------------------------------------------------------------------------
 *
 * server.hpp
 *		The server headers that every file of the boundary needs.
 *
 * Include it after the standard and library headers: postgres.h replaces the
 * printf family by macros, and <cstdio> seen later would undo that.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

extern "C" {
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/elog.h"
#include "utils/memutils.h"
}
