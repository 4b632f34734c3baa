/*
 *  never.c - takes control, and never hands it back.
 */
#include "misbehaviour.h"

static bool misbehave(MQ_Context *context, MQ_Connection *connection)
{
    (void)context, (void)connection;
    return true;
}

RCPTTO("never")
