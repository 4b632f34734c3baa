/*
 *  null.c - calls everything with NULL, with numbers that were never handed out, and with handles of the wrong kind.
 */
#include "misbehaviour.h"

static void on_timer(void *data) { (void)data; MQ_log(MQ_CRIT, "null: a timer of nobody"); }
static void on_io(MQ_IOWatcher *watcher, int fd, int events, void *data) 
{
    (void)watcher, (void)fd, (void)events, (void)data;
}

static int call_all(void *handle)
{
    int answers = MQ_fileDescriptor(handle) != -1;
    answers += MQ_send(handle, "x", 1) != 0;
    answers += MQ_authenticated(handle) + MQ_secure(handle) + MQ_local(handle);
    answers += MQ_envelope(handle) || MQ_recipient(handle) || MQ_Envelope(handle) || MQ_Recipient(handle);
    answers += MQ_mime(handle) || MQ_email(handle) || MQ_json(handle) || MQ_Json(handle) || MQ_ev(handle);
    answers += MQ_ioWatch(handle, 0, MQ_READ, on_io, NULL) || MQ_startTimer(handle, 0, on_timer, NULL);
    MQ_setAuthenticated(handle, true);
    MQ_setLocal(handle, true);
    MQ_setEnvelope(handle, NULL, 5);
    MQ_setRecipient(handle, NULL, 5);
    MQ_setMime(handle, NULL, 5);
    MQ_ioUnwatch(handle);
    MQ_stopTimer(handle);
    MQ_resetTimer(handle, 1);
    MQ_reject(handle, 550, NULL, NULL);
    MQ_continue(handle);
    MQ_complete(handle);
    MQ_retry(handle);
    MQ_Continue(handle);
    MQ_Complete(handle);
    MQ_Retry(handle);
    return answers;
}

static bool misbehave(MQ_Context *context, MQ_Connection *connection)
{
    int answers = call_all(NULL) + call_all((void *)7) + call_all((void *)-1) + call_all((void *)0x7fffffff0);
    answers += MQ_connectionData(NULL) || MQ_contextData(NULL);
    MQ_setConnectionData(NULL, NULL);
    MQ_setContextData((void *)7, NULL);
    answers += MQ_email((void *)connection) || MQ_mime((void *)context) || MQ_ev((void *)connection);
    answers += MQ_fileDescriptor((void *)context) != -1 || MQ_local(connection);
    MQ_stopTimer((void *)context);
    MQ_ioUnwatch((void *)connection);
    answers += MQ_ioWatch(context, -1, MQ_READ, on_io, NULL) || MQ_ioWatch(context, 9999, MQ_READ, on_io, NULL);
    answers += MQ_ioWatch(context, 0, MQ_READ, NULL, NULL) || MQ_startTimer(context, 0, NULL, NULL);
    answers += MQ_send(connection, NULL, 5) != 0;
    MQ_log(MQ_INFO, NULL);
    SAY("null: %d answers", answers);
    return false;
}

RCPTTO("null")
