/*
 *  late.c - hands back control when its time is over and the client has been answered.
 */
#include "misbehaviour.h"

static void late(void *connection)
{
    MQ_log(MQ_INFO, "late: now");
    MQ_continue(connection);
}

static bool misbehave(MQ_Context *context, MQ_Connection *connection)
{
    return MQ_startTimer(context, SECONDS + 0.2f, late, connection) != NULL;
}

RCPTTO("late")
