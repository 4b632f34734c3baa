/*
 *  threads.c - eight threads send, log and hand back control of one connection, all at once.
 */
#include <pthread.h>
#include "misbehaviour.h"

#define THREADS 8

static pthread_t threads[THREADS];
static int started;

static void *work(void *connection)
{
    MQ_send(connection, "250-from a thread\r\n", 19);
    MQ_log(MQ_INFO, "threads: sent");
    MQ_continue(connection);
    return NULL;
}

static bool misbehave(MQ_Context *context, MQ_Connection *connection)
{
    (void)context;
    for (started = 0; started < THREADS; started++)
        if (pthread_create(&threads[started], NULL, work, connection)) break;
    return started > 0;
}

RCPTTO("threads")

void mq_cleanup(void)
{
    while (started) pthread_join(threads[--started], NULL);
}
