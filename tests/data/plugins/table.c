/*
 *  Every function of the interface, called where its effect can be seen: tests/test_plugin_table.py looks at what is
 *  logged, at what the clients were answered, and at what arrives. One source for both generations.
 *
 *  What is done with a recipient is what stands before the @ of its address.
 */
#include <mailerq.h>
#include <ev.h>
#define FJSON_NATIVE_API_ONLY      /* else it takes the names of json-c */
#include <json-c/json.h>
#include <libfastjson/json.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#if MQ_API_GENERATION == 3
#define NAMES(new, old) old
#define HELD context
#define ADDRESS const char *address, size_t size
#else
#define NAMES(new, old) new
#define HELD connection
#define ADDRESS MQ_Address *address
#endif
#define fileDescriptor      NAMES(MQ_fileDescriptor, MQ_SmtpFileDescriptor)
#define Send                NAMES(MQ_send, MQ_SmtpSend)
#define authenticated       NAMES(MQ_authenticated, MQ_SmtpAuthenticated)
#define setAuthenticated    NAMES(MQ_setAuthenticated, MQ_SetSmtpAuthenticated)
#define secure              NAMES(MQ_secure, MQ_SmtpSecure)
#define connectionData      NAMES(MQ_connectionData, MQ_SmtpData)
#define setConnectionData   NAMES(MQ_setConnectionData, MQ_SetSmtpData)
#define contextData         NAMES(MQ_contextData, MQ_ContextData)
#define setContextData      NAMES(MQ_setContextData, MQ_SetContextData)
#define ioWatch             NAMES(MQ_ioWatch, MQ_IOWatch)
#define ioUnwatch           NAMES(MQ_ioUnwatch, MQ_IOUnwatch)
#define startTimer          NAMES(MQ_startTimer, MQ_TimerStart)
#define stopTimer           NAMES(MQ_stopTimer, MQ_TimerStop)
#define resetTimer          NAMES(MQ_resetTimer, MQ_TimerReset)
#define setEnvelope         NAMES(MQ_setEnvelope, MQ_SetEnvelope)
#define setRecipient        NAMES(MQ_setRecipient, MQ_SetRecipient)
#define mime_               NAMES(MQ_mime, MQ_Mime)
#define setMime             NAMES(MQ_setMime, MQ_SetMime)
#define local               NAMES(MQ_local, MQ_Local)
#define setLocal            NAMES(MQ_setLocal, MQ_SetLocal)
#define TEXT_(name) #name
#define TEXT(name) TEXT_(name)

#define SAY(...) do { char line[512]; snprintf(line, sizeof line, __VA_ARGS__); MQ_log(MQ_INFO, line); } while (0)
#define SAID(name, format, ...) SAY("%s " format, TEXT(name), __VA_ARGS__)

static MQ_Timer *moved;
static int ends[2];
static ev_timer libev_timer;
static ev_io libev_io;
static int libev_ends[2];

static const char *text(const char *value) { return value ? value : "NULL"; }

int mq_version(void) { MQ_log(MQ_INFO, "mq_version"); return MQ_API_VERSION; }

void mq_initialize(void)
{
    MQ_log(MQ_INFO, "mq_initialize");
    MQ_log(MQ_CRIT, "MQ_log critical");
    MQ_log(MQ_WARN, "MQ_log warning");
    MQ_log(MQ_INFO, "MQ_log info");
    MQ_log(-1, "MQ_log invalid");
}

void mq_cleanup(void) { MQ_log(MQ_INFO, "mq_cleanup"); }

static void on_libev_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)timer, (void)events;
    SAY("MQ_ev timer %d", loop != NULL);
    if (write(libev_ends[1], "x", 1) != 1) MQ_log(MQ_CRIT, "write");
}

static void on_libev_io(struct ev_loop *loop, ev_io *watcher, int events)
{
    char got[2] = "";
    if (read(watcher->fd, got, 1) == 1) SAY("MQ_ev watcher %s %d", got, events == EV_READ);
    ev_io_stop(loop, watcher);
}

static void begin(MQ_Context *context)
{
    struct ev_loop *loop = MQ_ev(context);
    MQ_log(MQ_INFO, "mq_context_initialize");
    SAID(contextData, "%d", contextData(context) != NULL);
    setContextData(context, "kept");
    if (!loop || pipe(libev_ends)) return;
    ev_timer_init(&libev_timer, on_libev_timer, 0.01, 0.);
    ev_timer_start(loop, &libev_timer);
    ev_io_init(&libev_io, on_libev_io, libev_ends[0], EV_READ);
    ev_io_start(loop, &libev_io);
}

static void end(MQ_Context *context)
{
    SAY("mq_context_cleanup %s", (const char *)contextData(context));
}

#if MQ_API_GENERATION == 3
bool mq_context_initialize(MQ_Context *context) { begin(context); return false; }
bool mq_context_cleanup(MQ_Context *context) { end(context); return false; }
#else
void mq_context_initialize(MQ_Context *context) { begin(context); }
void mq_context_cleanup(MQ_Context *context) { end(context); }
#endif

bool mq_smtp_in_connect(MQ_Context *context, MQ_Connection *connection)
{
    struct sockaddr_in peer = { 0 };
    socklen_t size = sizeof peer;
    getpeername(fileDescriptor(connection), (struct sockaddr *)&peer, &size);
    MQ_log(MQ_INFO, "mq_smtp_in_connect");
    SAID(fileDescriptor, "%d", ntohs(peer.sin_port));
    SAID(contextData, "%s", (const char *)contextData(context));
    SAID(connectionData, "%d", connectionData(connection) != NULL);
    setConnectionData(connection, strdup("allocated"));
    SAID(authenticated, "%d", authenticated(connection));
    SAID(secure, "%d", secure(connection));
    return false;
}

bool mq_smtp_in_secure(MQ_Context *context, MQ_Connection *connection)
{
    (void)context;
    SAY("mq_smtp_in_secure %s", (const char *)connectionData(connection));
    SAID(secure, "%d", secure(connection));
    return false;
}

static bool on_mailfrom(MQ_Connection *connection, const char *address)
{
    SAY("mq_smtp_in_mailfrom %s", text(address));
    SAID(connectionData, "%s", (const char *)connectionData(connection));
    setAuthenticated(connection, address && !strncmp(address, "login", 5));
    SAID(setAuthenticated, "%d", authenticated(connection));
    SAID(Send, "%zu", Send(connection, "250-sent by a plugin\r\n", 22));
    return false;
}

bool mq_smtp_in_authenticate(MQ_Context *context, MQ_Connection *connection, const char *login, size_t loginsize,
                             const char *passwd, size_t passwdsize)
{
    (void)context;
    SAY("mq_smtp_in_authenticate %s %zu %s %zu %d", login, loginsize, passwd, passwdsize, authenticated(connection));
    setAuthenticated(connection, !strcmp(passwd, "right"));
    return false;
}

static void on_readable(MQ_IOWatcher *watcher, int fd, int events, void *data)
{
    char got[8] = "";
    ssize_t size = read(fd, got, sizeof got - 1);
    SAID(ioWatch, "%zd %s %d", size, got, events);
    ioUnwatch(watcher);
    if (write(ends[1], "more", 4) != 4) MQ_log(MQ_CRIT, "write");      /* must not be seen */
    MQ_continue(data);
}

static void on_never(void *data) { SAID(stopTimer, "%s", (const char *)data); }

static void on_moved(void *data)
{
    SAID(startTimer, "%d", data != NULL);
    MQ_continue(data);
}

static bool on_rcptto(MQ_Context *context, MQ_Connection *connection, const char *address)
{
    static int new_retried, old_retried;
    char what[32];
    snprintf(what, sizeof what, "%.*s", (int)strcspn(address, "@"), address);
    SAY("mq_smtp_in_rcptto %s", address);
    if (!strcmp(what, "new-continue")) return MQ_continue(connection), true;
    if (!strcmp(what, "new-complete")) return MQ_complete(connection), true;
    if (!strcmp(what, "old-continue")) return MQ_Continue(HELD), true;
    if (!strcmp(what, "old-complete")) return MQ_Complete(HELD), true;
    if (!strcmp(what, "new-retry") && !new_retried++) return MQ_retry(connection), true;
    if (!strcmp(what, "old-retry") && !old_retried++) return MQ_Retry(HELD), true;
    if (!strcmp(what, "reject")) MQ_reject(connection, 550, "5.7.1", "Not here");
    if (!strcmp(what, "watch")) {
        if (pipe(ends) || write(ends[1], "ping", 4) != 4) return false;
        return ioWatch(context, ends[0], MQ_READ, on_readable, connection) != NULL;
    }
    if (!strcmp(what, "timer")) {
        MQ_Timer *stopped = startTimer(context, 0.01f, on_never, "fired");
        moved = startTimer(context, 3600, on_moved, connection);
        stopTimer(stopped);
        resetTimer(moved, 0.05f);
        return true;
    }
    return false;
}

#if MQ_API_GENERATION == 3
bool mq_smtp_in_mailfrom(MQ_Context *context, MQ_Connection *connection, const char *address, size_t size)
{
    (void)context;
    return strlen(address) == size && on_mailfrom(connection, size ? address : NULL);
}

bool mq_smtp_in_rcptto(MQ_Context *context, MQ_Connection *connection, const char *address, size_t size)
{
    return strlen(address) == size && on_rcptto(context, connection, address);
}
#else
bool mq_smtp_in_mailfrom(MQ_Context *context, MQ_Connection *connection, MQ_Address *address)
{
    (void)context;
    return on_mailfrom(connection, MQ_email(address));
}

bool mq_smtp_in_rcptto(MQ_Context *context, MQ_Connection *connection, MQ_Address *address)
{
    if (!strncmp(MQ_email(address), "local", 5)) {
        setLocal(address, true);
        SAID(setLocal, "%d of an address", local(address));
    }
    return on_rcptto(context, connection, MQ_email(address));
}
#endif

bool mq_smtp_in_data(MQ_Context *context, MQ_Connection *connection, const char *mime, size_t size)
{
    (void)context, (void)connection;
    SAY("mq_smtp_in_data %zu %.8s", size, mime);
    return false;
}

static void change(MQ_Message *message)
{
    struct fjson_object *fast = MQ_json(message);
    struct json_object *slow = MQ_Json(message);
    SAY("MQ_json %s", fast ? fjson_object_to_json_string(fast) : "NULL");
    SAY("MQ_Json %s", slow ? json_object_to_json_string(slow) : "NULL");
    if (fast) fjson_object_object_add(fast, "by-libfastjson", fjson_object_new_int(1));
    if (slow) json_object_object_add(slow, "by-json-c", json_object_new_int(2));
    setEnvelope(message, "new-sender@example.org-and-more", 22);
    setRecipient(message, "new-recipient@example.org-and-more", 25);
    setMime(message, "Subject: new\r\n\r\nnew\r\n-and-more", 21);
}

bool mq_smtp_in_message(MQ_Context *context, MQ_Connection *connection, MQ_Message *message)
{
    const char *recipient = MQ_Recipient(message);
    (void)context, (void)connection;
    SAY("mq_smtp_in_message %s", recipient);
    if (!strncmp(recipient, "change", 6)) {
        change(message);
        SAID(setMime, "%.12s", mime_(message));
    }
    if (!strncmp(recipient, "local", 5)) {
        setLocal(message, true);
        SAID(local, "%d", local(message));
    }
    SAY("MQ_envelope %d", MQ_envelope(message) != NULL);
    SAY("MQ_email %s %s", text(MQ_email(MQ_envelope(message))), MQ_email(MQ_recipient(message)));
    SAY("MQ_Envelope %s", text(MQ_Envelope(message)));
    SAY("MQ_recipient %d", MQ_recipient(message) != NULL);
    SAY("MQ_Recipient %s", MQ_Recipient(message));
    SAID(mime_, "%.8s", mime_(message));
    return false;
}

bool mq_smtp_in_close(MQ_Context *context, MQ_Connection *connection)
{
    (void)context;
    SAY("mq_smtp_in_close %s", (const char *)connectionData(connection));
    free(connectionData(connection));
    return false;
}

bool mq_smtp_out_data(MQ_Context *context, MQ_Connection *connection, MQ_Message *message)
{
    SAY("mq_smtp_out_data %s %s", text(MQ_Envelope(message)), MQ_Recipient(message));
    SAY("out %s %d", TEXT(fileDescriptor), fileDescriptor(connection) > 2);
    SAY("out %s %s", TEXT(mime_), text(mime_(message)));
    if (!strncmp(MQ_Recipient(message), "change", 6)) {
        setEnvelope(message, "new-sender@example.org", 22);
        setRecipient(message, "new-recipient@example.org", 25);
        setMime(message, "Subject: new\r\n\r\nnew\r\n", 21);
        moved = startTimer(context, 0.01f, on_moved, connection);
        return true;
    }
    return false;
}

bool mq_smtp_out_sent(MQ_Context *context, MQ_Connection *connection, MQ_Message *message)
{
    (void)context, (void)connection;
    SAY("mq_smtp_out_sent %s", MQ_Recipient(message));
    return false;
}
