/*
 *  record.c - one line in the log for each connection, when it ends: who, how many recipients and messages, how much.
 *
 *      cc -shared -fPIC -I include -o 15-record.so plugins/record.c
 *
 *  What is counted meanwhile hangs on the connection: allocated when it begins, freed when it ends.
 */
#include <mailerq.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

struct record { char client[INET6_ADDRSTRLEN]; size_t recipients, messages, bytes; };

int mq_version(void) { return MQ_API_VERSION; }

bool mq_smtp_in_connect(MQ_Context *context, MQ_Connection *connection)
{
    struct record *record = calloc(1, sizeof *record);
    union { struct sockaddr any; struct sockaddr_in four; struct sockaddr_in6 six; } peer;
    socklen_t size = sizeof peer;
    (void)context;
    if (record && !getpeername(MQ_fileDescriptor(connection), &peer.any, &size))
        inet_ntop(peer.any.sa_family, peer.any.sa_family == AF_INET ? (void *)&peer.four.sin_addr :
                  (void *)&peer.six.sin6_addr, record->client, sizeof record->client);
    MQ_setConnectionData(connection, record);
    return false;
}

bool mq_smtp_in_rcptto(MQ_Context *context, MQ_Connection *connection, MQ_Address *recipient)
{
    struct record *record = MQ_connectionData(connection);
    (void)context, (void)recipient;
    if (record) record->recipients++;
    return false;
}

bool mq_smtp_in_data(MQ_Context *context, MQ_Connection *connection, const char *mime, size_t size)
{
    struct record *record = MQ_connectionData(connection);
    (void)context, (void)mime;
    if (record) record->messages++, record->bytes += size;
    return false;
}

bool mq_smtp_in_close(MQ_Context *context, MQ_Connection *connection)
{
    struct record *record = MQ_connectionData(connection);
    char line[200];
    (void)context;
    if (!record) return false;
    snprintf(line, sizeof line, "record: %s, %zu recipients, %zu messages, %zu bytes", record->client, record->recipients,
             record->messages, record->bytes);
    MQ_log(MQ_INFO, line);
    free(record);
    return false;
}
