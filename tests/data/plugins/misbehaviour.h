/*
 *  What the misbehaving plugins share. Each has a file of its own, and does what it is named for when there is a
 *  recipient of that name: never@example.org. Otherwise it behaves, so that all can be loaded at once.
 */
#include <mailerq.h>
#include <stdio.h>
#include <string.h>

#if MQ_API_GENERATION == 3
#define HELD context
#define RCPTTO(mark) bool mq_smtp_in_rcptto(MQ_Context *context, MQ_Connection *connection, const char *address, \
                                            size_t size) \
    { (void)size; return is_meant(address, mark) ? misbehave(context, connection) : false; }
#else
#define HELD connection
#define RCPTTO(mark) bool mq_smtp_in_rcptto(MQ_Context *context, MQ_Connection *connection, MQ_Address *address) \
    { return is_meant(MQ_email(address), mark) ? misbehave(context, connection) : false; }
#endif

#define SAY(...) do { char line[256]; snprintf(line, sizeof line, __VA_ARGS__); MQ_log(MQ_INFO, line); } while (0)

#ifndef SECONDS             /* that plugin-timeout allows, in the run at hand */
#define SECONDS 60
#endif

int mq_version(void) { return MQ_API_VERSION; }

static inline bool is_meant(const char *address, const char *mark)
{
    return address && !strncmp(address, mark, strlen(mark)) && address[strlen(mark)] == '@';
}
