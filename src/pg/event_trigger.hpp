/*-------------------------------------------------------------------------
 *
 * event_trigger.hpp
 *		What the function of an event trigger is called with.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include "pg/server.hpp"

extern "C" {
#include "commands/event_trigger.h"
}

namespace cache_ext::pg {

/* Raises 39P03 when somebody else calls the function. */
inline EventTriggerData *
event_of(FunctionCallInfo fcinfo, const char *function)
{
	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
		                errmsg("function \"%s\" was not called by an event trigger", function)));
	return reinterpret_cast<EventTriggerData *>(fcinfo->context);
}

} /* namespace cache_ext::pg */
