/*
 *  left.c - hands back control after the client has left, and uses what stood for it.
 */
#include "misbehaviour.h"

static void late(void *connection)
{
    SAY("left: %d %zu %d", MQ_fileDescriptor(connection), MQ_send(connection, "250 hello\r\n", 11),
        MQ_connectionData(connection) == NULL);
    MQ_continue(connection);
}

static bool misbehave(MQ_Context *context, MQ_Connection *connection)
{
    MQ_setConnectionData(connection, "data");
    MQ_log(MQ_INFO, "left: in control");
    return MQ_startTimer(context, SECONDS / 2.0f, late, connection) != NULL;
}

RCPTTO("left")

bool mq_smtp_in_close(MQ_Context *context, MQ_Connection *connection)
{
    (void)context;
    if (MQ_connectionData(connection)) MQ_log(MQ_INFO, "left: close");
    return false;
}
