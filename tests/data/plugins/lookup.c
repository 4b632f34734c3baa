/*
 *  lookup.c - asks a server on this host about recipients called ask@..., and keeps nobody waiting meanwhile.
 *
 *  HTTP: GET /recipient, and another answer than 200 refuses it. With REDIS defined: the first element of the list
 *  `recipient`, as soon as there is one, and another than "yes" refuses it. PORT is where the server listens.
 */
#include <mailerq.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifdef REDIS
#define QUESTION "BLPOP %s 0\r\n"
#define COMPLETE(answer) (strstr(answer, "yes\r\n") || strstr(answer, "no\r\n"))
#define GOOD(answer) strstr(answer, "yes\r\n")
#else
#define QUESTION "GET /%s HTTP/1.0\r\n\r\n"
#define COMPLETE(answer) strstr(answer, "\r\n")
#define GOOD(answer) strstr(answer, " 200 ")
#endif

struct lookup {
    MQ_Context *context;
    MQ_Connection *connection;
    int fd;
    char text[512];
    size_t length;
};

int mq_version(void) { return MQ_API_VERSION; }

static void finish(struct lookup *lookup, int code, const char *text)
{
    if (code) MQ_reject(lookup->connection, code, code < 500 ? "4.4.3" : "5.7.1", text);
    MQ_continue(lookup->connection);
    close(lookup->fd);
    free(lookup);
}

static void on_answer(MQ_IOWatcher *watcher, int fd, int events, void *data)
{
    struct lookup *lookup = data;
    ssize_t size = read(fd, lookup->text + lookup->length, sizeof lookup->text - 1 - lookup->length);
    (void)events;
    if (size > 0) lookup->length += size;
    lookup->text[lookup->length] = 0;
    if (size > 0 && !COMPLETE(lookup->text)) return;
    MQ_ioUnwatch(watcher);
    if (!COMPLETE(lookup->text)) finish(lookup, 451, "The lookup broke off");
    else if (GOOD(lookup->text)) finish(lookup, 0, NULL);
    else finish(lookup, 550, "The lookup says no");
}

static void on_connected(MQ_IOWatcher *watcher, int fd, int events, void *data)
{
    struct lookup *lookup = data;
    size_t size = strlen(lookup->text);
    (void)events;
    MQ_ioUnwatch(watcher);
    if (write(fd, lookup->text, size) != (ssize_t)size) finish(lookup, 451, "The server of lookups is away");
    else if (!MQ_ioWatch(lookup->context, fd, MQ_READ, on_answer, lookup)) finish(lookup, 451, "No lookup");
}

bool mq_smtp_in_rcptto(MQ_Context *context, MQ_Connection *connection, MQ_Address *recipient)
{
    struct sockaddr_in server = { .sin_family = AF_INET, .sin_port = htons(PORT),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct lookup *lookup;
    if (strncmp(MQ_email(recipient), "ask@", 4)) return false;
    if (!(lookup = calloc(1, sizeof *lookup))) return false;
    lookup->context = context, lookup->connection = connection;
    snprintf(lookup->text, sizeof lookup->text, QUESTION, MQ_email(recipient));
    lookup->fd = socket(AF_INET, SOCK_STREAM, 0);
    fcntl(lookup->fd, F_SETFL, O_NONBLOCK);
    connect(lookup->fd, (struct sockaddr *)&server, sizeof server);
    if (!MQ_ioWatch(context, lookup->fd, MQ_WRITE, on_connected, lookup)) finish(lookup, 451, "No lookup");
    return true;
}
