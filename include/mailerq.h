/*
 *  mailerq.h - what a plugin of mqlite calls, and what it may define to be called.
 *
 *  A plugin is a shared object in `plugin-directory`. It defines mq_version() and any of the other mq_* functions
 *  below; the MQ_* functions are ordinary symbols that mqlite provides when it loads the object: nothing to link with.
 *
 *      cc -shared -fPIC -o 10-example.so example.c
 *
 *  Two generations of the interface exist, as in MailerQ. A source file is generation 5 (MailerQ 4 and 5) unless it
 *  says `#define MQ_API_GENERATION 3` (MailerQ 3) before it includes this file. The generation decides which
 *  signatures the mq_* functions have, and what MQ_Continue, MQ_Complete and MQ_Retry take. Everything else is there in
 *  both, under the names of both.
 *
 *  All structures are opaque, and a pointer to one is good until the thing it stands for ends: a connection until
 *  mq_smtp_in_close() has handed back, a message and an address until the step has ended. A call with NULL or with a
 *  pointer that is not good any more does nothing, returns 0, false or NULL, and is logged once.
 *
 *  Every function may be called from any thread.
 */
#ifndef MAILERQ_H
#define MAILERQ_H

#include <stdbool.h>
#include <stddef.h>

#ifndef MQ_API_GENERATION
#define MQ_API_GENERATION 5
#endif
#if MQ_API_GENERATION != 3 && MQ_API_GENERATION != 5
#error "MQ_API_GENERATION must be 3 or 5"
#endif

#define MQ_API_VERSION MQ_API_GENERATION        /* what mq_version() returns */
#define MQ_EXPORT __attribute__ ((visibility("default")))

#define MQ_READ     1   /* events of MQ_ioWatch() */
#define MQ_WRITE    2

#define MQ_CRIT     1   /* priorities of MQ_log() */
#define MQ_WARN     2
#define MQ_INFO     3

#ifdef __cplusplus
extern "C" {
#endif

typedef struct MQ_Context       MQ_Context;     /* a worker: an event loop and the thread that runs it */
typedef struct MQ_Connection    MQ_Connection;  /* an SMTP connection, in or out */
typedef struct MQ_Connection    MQ_SmtpConnection;
typedef struct MQ_Message       MQ_Message;     /* one message for one recipient */
typedef struct MQ_Address       MQ_Address;     /* a sender or a recipient */
typedef struct MQ_IOWatcher     MQ_IOWatcher;   /* a file descriptor that is watched */
typedef struct MQ_Timer         MQ_Timer;       /* a timer that runs */

struct ev_loop;         /* of libev */
struct fjson_object;    /* of libfastjson */
struct json_object;     /* of json-c */

typedef void MQ_IOCallback(MQ_IOWatcher *watcher, int fd, int events, void *data);
typedef void MQ_TimerCallback(void *data);


/* ---- handing back control, after a callback has returned true ---- */

void MQ_continue(MQ_Connection *connection);    /* call the next plugin */
void MQ_complete(MQ_Connection *connection);    /* skip the other plugins in this step */
void MQ_retry(MQ_Connection *connection);       /* call all plugins again, from the first */

#if MQ_API_GENERATION == 3
void MQ_Continue(MQ_Context *context);  /* for the connection that this plugin controls; of several, the oldest */
void MQ_Complete(MQ_Context *context);
void MQ_Retry(MQ_Context *context);
#else
void MQ_Continue(MQ_Connection *connection);
void MQ_Complete(MQ_Connection *connection);
void MQ_Retry(MQ_Connection *connection);
#endif

/*
 *  Not in MailerQ, mqlite's own: refuse the present step with this reply, as in (connection, 550, "5.7.1", "No entry").
 *  `code` is 400 to 599 (another one defers with 451), `status` may be NULL or "". Takes effect when control is handed
 *  back; the first one counts.
 */
void MQ_reject(MQ_Connection *connection, int code, const char *status, const char *text);


/* ---- connections ---- */

int     MQ_fileDescriptor(MQ_Connection *connection);           /* the socket, to be looked at only; -1 when closed */
size_t  MQ_send(MQ_Connection *connection, const void *buffer, size_t size);    /* bytes taken; in order with ours */
bool    MQ_authenticated(MQ_Connection *connection);
void    MQ_setAuthenticated(MQ_Connection *connection, bool authenticated);     /* false undoes an earlier true */
bool    MQ_secure(MQ_Connection *connection);                   /* whether TLS is on */
void   *MQ_connectionData(MQ_Connection *connection);           /* this plugin's own; NULL at first */
void    MQ_setConnectionData(MQ_Connection *connection, void *data);

int     MQ_SmtpFileDescriptor(MQ_Connection *connection);
size_t  MQ_SmtpSend(MQ_Connection *connection, const void *buffer, size_t size);
bool    MQ_SmtpAuthenticated(MQ_Connection *connection);
void    MQ_SetSmtpAuthenticated(MQ_Connection *connection, bool authenticated);
bool    MQ_SmtpSecure(MQ_Connection *connection);
void   *MQ_SmtpData(MQ_Connection *connection);
void    MQ_SetSmtpData(MQ_Connection *connection, void *data);


/* ---- contexts: the event loop ---- */

void           *MQ_contextData(MQ_Context *context);            /* this plugin's own; NULL at first */
void            MQ_setContextData(MQ_Context *context, void *data);
struct ev_loop *MQ_ev(MQ_Context *context);
MQ_IOWatcher   *MQ_ioWatch(MQ_Context *context, int fd, int events, MQ_IOCallback *callback, void *data);
void            MQ_ioUnwatch(MQ_IOWatcher *watcher);            /* before the descriptor is closed */
MQ_Timer       *MQ_startTimer(MQ_Context *context, float timeout, MQ_TimerCallback *callback, void *data); /* seconds */
void            MQ_stopTimer(MQ_Timer *timer);                  /* not after it has fired */
void            MQ_resetTimer(MQ_Timer *timer, float timeout);  /* not after it has fired */

void           *MQ_ContextData(MQ_Context *context);
void            MQ_SetContextData(MQ_Context *context, void *data);
MQ_IOWatcher   *MQ_IOWatch(MQ_Context *context, int fd, int events, MQ_IOCallback *callback, void *data);
void            MQ_IOUnwatch(MQ_IOWatcher *watcher);
MQ_Timer       *MQ_TimerStart(MQ_Context *context, float timeout, MQ_TimerCallback *callback, void *data);
void            MQ_TimerStop(MQ_Timer *timer);
void            MQ_TimerReset(MQ_Timer *timer, float timeout);


/* ---- messages and addresses ---- */

MQ_Address     *MQ_envelope(MQ_Message *message);               /* the sender; NULL when there is none */
void            MQ_setEnvelope(MQ_Message *message, const char *envelope, size_t size);
MQ_Address     *MQ_recipient(MQ_Message *message);
void            MQ_setRecipient(MQ_Message *message, const char *recipient, size_t size);
const char     *MQ_mime(MQ_Message *message);                   /* NULL when there is none */
void            MQ_setMime(MQ_Message *message, const char *mime, size_t size);
const char     *MQ_email(MQ_Address *address);                  /* NULL for the null sender */
bool            MQ_local(void *message_or_address);             /* an MQ_Message or an MQ_Address: the pages say both */
void            MQ_setLocal(void *message_or_address, bool local);
struct fjson_object *MQ_json(MQ_Message *message);

const char     *MQ_Envelope(MQ_Message *message);
void            MQ_SetEnvelope(MQ_Message *message, const char *envelope, size_t size);
const char     *MQ_Recipient(MQ_Message *message);
void            MQ_SetRecipient(MQ_Message *message, const char *recipient, size_t size);
const char     *MQ_Mime(MQ_Message *message);
void            MQ_SetMime(MQ_Message *message, const char *mime, size_t size);
bool            MQ_Local(void *message_or_address);
void            MQ_SetLocal(void *message_or_address, bool local);
struct json_object *MQ_Json(MQ_Message *message);


/* ---- the log ---- */

void MQ_log(int priority, const char *message);                 /* MQ_CRIT, MQ_WARN, MQ_INFO */


/* ---- what a plugin may define: false, "go on"; true, "I am in control until I hand it back" ---- */

MQ_EXPORT int  mq_version(void);        /* required: return MQ_API_VERSION */
MQ_EXPORT void mq_initialize(void);     /* once, when all plugins are loaded; may block */
MQ_EXPORT void mq_cleanup(void);        /* once, before the process ends */

#if MQ_API_GENERATION == 3
MQ_EXPORT bool mq_context_initialize(MQ_Context *context);      /* per worker, before it serves anything */
MQ_EXPORT bool mq_context_cleanup(MQ_Context *context);         /* per worker, before it ends */
#else
MQ_EXPORT void mq_context_initialize(MQ_Context *context);
MQ_EXPORT void mq_context_cleanup(MQ_Context *context);
#endif

/* connected, before the greeting */
MQ_EXPORT bool mq_smtp_in_connect(MQ_Context *context, MQ_Connection *connection);

/* the TLS handshake is done */
MQ_EXPORT bool mq_smtp_in_secure(MQ_Context *context, MQ_Connection *connection);

/* the client has given its credentials; MQ_authenticated is what smtp-auth says of them, and the verdict is what
   MQ_setAuthenticated has said last; without smtp-auth plugins are the only judges */
MQ_EXPORT bool mq_smtp_in_authenticate(MQ_Context *context, MQ_Connection *connection, const char *login,
                                       size_t loginsize, const char *passwd, size_t passwdsize);

#if MQ_API_GENERATION == 3
MQ_EXPORT bool mq_smtp_in_mailfrom(MQ_Context *context, MQ_Connection *connection, const char *mailfrom, size_t size);
MQ_EXPORT bool mq_smtp_in_rcptto(MQ_Context *context, MQ_Connection *connection, const char *rcptto, size_t size);
#else
MQ_EXPORT bool mq_smtp_in_mailfrom(MQ_Context *context, MQ_Connection *connection, MQ_Address *mailfrom);
MQ_EXPORT bool mq_smtp_in_rcptto(MQ_Context *context, MQ_Connection *connection, MQ_Address *rcptto);
#endif

/* the message has come in completely */
MQ_EXPORT bool mq_smtp_in_data(MQ_Context *context, MQ_Connection *connection, const char *mime, size_t size);

/* once for each recipient, before anything is published */
MQ_EXPORT bool mq_smtp_in_message(MQ_Context *context, MQ_Connection *connection, MQ_Message *message);

/* the connection has ended; the last use of `connection` */
MQ_EXPORT bool mq_smtp_in_close(MQ_Context *context, MQ_Connection *connection);

/* sending: the peer has answered DATA with 354, the message comes next */
MQ_EXPORT bool mq_smtp_out_data(MQ_Context *context, MQ_Connection *connection, MQ_Message *message);

/* sending: the final dot is out, its reply is awaited */
MQ_EXPORT bool mq_smtp_out_sent(MQ_Context *context, MQ_Connection *connection, MQ_Message *message);

#ifdef __cplusplus
}
#endif
#endif
