/*
 *  endless.c - begins the step anew each time.
 */
#include "misbehaviour.h"

static bool misbehave(MQ_Context *context, MQ_Connection *connection)
{
    (void)context, (void)connection;
    MQ_Retry(HELD);
    return true;
}

RCPTTO("endless")
