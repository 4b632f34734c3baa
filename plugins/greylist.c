/*
 *  greylist.c - who has not been here before is asked to come again in a minute: a mail server does, a robot does not.
 *
 *      cc -shared -fPIC -I include -o 20-greylist.so plugins/greylist.c
 *
 *  Remembers a hash of client and recipient in memory; a table that is full forgets what hashes to the same place.
 */
#include <mailerq.h>
#include <stdint.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <time.h>

#define PLACES  65536
#define SECONDS 60

static struct { uint64_t who; time_t since; } seen[PLACES];

static uint64_t add(uint64_t hash, const void *data, size_t size)      /* FNV-1a */
{
    const unsigned char *bytes = data;
    while (size--) hash = (hash ^ *bytes++) * 1099511628211u;
    return hash;
}

static uint64_t hash_client(int descriptor)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    uint64_t hash = 14695981039346656037u;
    if (getpeername(descriptor, (struct sockaddr *)&address, &size)) return hash;
    if (address.ss_family == AF_INET)
        return add(hash, &((struct sockaddr_in *)&address)->sin_addr, 3);      /* the network of a farm of senders */
    return add(hash, &((struct sockaddr_in6 *)&address)->sin6_addr, 8);
}

int mq_version(void) { return MQ_API_VERSION; }

bool mq_smtp_in_rcptto(MQ_Context *context, MQ_Connection *connection, MQ_Address *recipient)
{
    uint64_t who = hash_client(MQ_fileDescriptor(connection));
    time_t now = time(NULL);
    (void)context;
    for (const char *at = MQ_email(recipient); at && *at; at++) who = add(who, at, 1);
    if (seen[who % PLACES].who != who) {
        seen[who % PLACES].who = who;
        seen[who % PLACES].since = now;
    }
    if (now - seen[who % PLACES].since < SECONDS)
        MQ_reject(connection, 450, "4.7.1", "You are new here, please come again in a minute");
    return false;
}
