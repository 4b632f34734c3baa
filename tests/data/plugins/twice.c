/*
 *  twice.c - hands back control twice, and not in the same way; and once more later.
 */
#include "misbehaviour.h"

static void again(void *connection) { MQ_retry(connection); }

static bool misbehave(MQ_Context *context, MQ_Connection *connection)
{
    MQ_Continue(HELD);
    MQ_Complete(HELD);
    MQ_startTimer(context, 0.01f, again, connection);
    return true;
}

RCPTTO("twice")
