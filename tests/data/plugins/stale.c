/*
 *  stale.c - keeps what stood for a connection, a message and addresses, and uses it when they have ended.
 */
#include "misbehaviour.h"

static MQ_Connection *connection_;
static MQ_Message *message_;
static MQ_Address *sender, *recipient_;
static MQ_Timer *fired;

static void on_timer(void *data) { (void)data; }

static bool misbehave(MQ_Context *context, MQ_Connection *connection)
{
    if (connection_ && connection_ != connection) {
        int answers = MQ_fileDescriptor(connection_) != -1;
        answers += MQ_send(connection_, "x", 1) != 0 || MQ_secure(connection_) || MQ_connectionData(connection_);
        answers += MQ_envelope(message_) || MQ_mime(message_) || MQ_json(message_) || MQ_Json(message_);
        answers += MQ_email(sender) || MQ_email(recipient_) || MQ_local(recipient_) || MQ_local(message_);
        MQ_setMime(message_, "x", 1);
        MQ_setLocal(recipient_, true);
        MQ_setAuthenticated(connection_, true);
        MQ_continue(connection_);
        MQ_reject(connection_, 550, "5.0.0", "x");
        MQ_stopTimer(fired);
        MQ_resetTimer(fired, 1);
        SAY("stale: %d answers", answers);
    }
    connection_ = connection;
    fired = MQ_startTimer(context, 0, on_timer, NULL);
    return false;
}

RCPTTO("stale")

bool mq_smtp_in_message(MQ_Context *context, MQ_Connection *connection, MQ_Message *message)
{
    (void)context, (void)connection;
    message_ = message, sender = MQ_envelope(message), recipient_ = MQ_recipient(message);
    return false;
}
