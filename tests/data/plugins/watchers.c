/*
 *  watchers.c - closes what is watched, and stops twice what it has started once.
 */
#include <unistd.h>
#include "misbehaviour.h"

static MQ_IOWatcher *first, *second;
static MQ_Timer *timer;
static int ends[2];

static void on_timer(void *connection)
{
    MQ_stopTimer(timer);
    MQ_resetTimer(timer, 0.01f);
    MQ_ioUnwatch(first);
    MQ_ioUnwatch(second);
    MQ_continue(connection);
}

static void on_io(MQ_IOWatcher *watcher, int fd, int events, void *data)
{
    (void)fd, (void)data;
    SAY("watchers: %d", events);
    MQ_ioUnwatch(watcher);
    MQ_ioUnwatch(watcher);
}

static bool misbehave(MQ_Context *context, MQ_Connection *connection)
{
    if (pipe(ends)) return false;
    first = MQ_ioWatch(context, ends[0], MQ_READ, on_io, NULL);
    second = MQ_ioWatch(context, ends[0], MQ_READ | MQ_WRITE, on_io, NULL);
    close(ends[0]);
    close(ends[1]);
    timer = MQ_startTimer(context, 0.05f, on_timer, connection);
    return true;
}

RCPTTO("watchers")
