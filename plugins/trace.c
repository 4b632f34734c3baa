/*
 *  trace.c - one line in the log for each step of each session.
 *
 *      cc -shared -fPIC -I include -o 10-trace.so plugins/trace.c
 */
#include <mailerq.h>
#include <stdio.h>

static bool say(MQ_Connection *connection, const char *step, const char *text)
{
    char line[400];
    snprintf(line, sizeof line, "trace: %d %s %s", MQ_fileDescriptor(connection), step, text ? text : "<>");
    MQ_log(MQ_INFO, line);
    return false;
}

int mq_version(void) { return MQ_API_VERSION; }

bool mq_smtp_in_connect(MQ_Context *context, MQ_Connection *connection)
{
    (void)context;
    return say(connection, "connect", "");
}

bool mq_smtp_in_secure(MQ_Context *context, MQ_Connection *connection)
{
    (void)context;
    return say(connection, "secure", "");
}

bool mq_smtp_in_authenticate(MQ_Context *context, MQ_Connection *connection, const char *login, size_t loginsize,
                             const char *passwd, size_t passwdsize)
{
    (void)context, (void)loginsize, (void)passwd, (void)passwdsize;
    return say(connection, "authenticate", login);
}

bool mq_smtp_in_mailfrom(MQ_Context *context, MQ_Connection *connection, MQ_Address *sender)
{
    (void)context;
    return say(connection, "mailfrom", MQ_email(sender));
}

bool mq_smtp_in_rcptto(MQ_Context *context, MQ_Connection *connection, MQ_Address *recipient)
{
    (void)context;
    return say(connection, "rcptto", MQ_email(recipient));
}

bool mq_smtp_in_data(MQ_Context *context, MQ_Connection *connection, const char *mime, size_t size)
{
    char length[32];
    (void)context, (void)mime;
    snprintf(length, sizeof length, "%zu", size);
    return say(connection, "data", length);
}

bool mq_smtp_in_message(MQ_Context *context, MQ_Connection *connection, MQ_Message *message)
{
    (void)context;
    return say(connection, "message", MQ_email(MQ_recipient(message)));
}

bool mq_smtp_in_close(MQ_Context *context, MQ_Connection *connection)
{
    (void)context;
    return say(connection, "close", "");
}

bool mq_smtp_out_data(MQ_Context *context, MQ_Connection *connection, MQ_Message *message)
{
    (void)context;
    return say(connection, "out data", MQ_email(MQ_recipient(message)));
}

bool mq_smtp_out_sent(MQ_Context *context, MQ_Connection *connection, MQ_Message *message)
{
    (void)context;
    return say(connection, "out sent", MQ_email(MQ_recipient(message)));
}
