/*
 *  blocks.c - takes its time within the callback, and keeps everybody waiting.
 */
#define _POSIX_C_SOURCE 199309L
#include <time.h>
#include "misbehaviour.h"

static bool misbehave(MQ_Context *context, MQ_Connection *connection)
{
    struct timespec time = { 0, 150 * 1000 * 1000 };
    (void)context, (void)connection;
    nanosleep(&time, NULL);
    return false;
}

RCPTTO("blocks")
