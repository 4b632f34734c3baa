/*
 *  uncontrolled.c - refuses with what is no refusal, gives up control, and then behaves as if it had it.
 */
#include "misbehaviour.h"

static void later(void *connection)
{
    MQ_complete(connection);
    MQ_reject(connection, 550, "5.7.1", "too late");
}

static bool misbehave(MQ_Context *context, MQ_Connection *connection)
{
    MQ_reject(connection, 250, "2.0.0", "fine");
    MQ_startTimer(context, 0.01f, later, connection);
    return false;
}

RCPTTO("uncontrolled")
