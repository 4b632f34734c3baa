"""THE SETTINGS TABLE: every setting there is, one row each. Help, README list, checks and defaults come from it.

Pure data. A row is (name, kind, status, default, help). A default `=name` is the value of that other setting. To honour
a setting from now on, change the word in its status column:

    HONOURED   mqlite does what the row says
    NOT_YET    MailerQ has it, mqlite reads it and warns at start when it differs from the default
    IGNORED    accepted without a word: it means nothing here

Where MailerQ 5.13 documents no default, ours is `off` or empty, or is marked (*) below. Defaults that differ from
MailerQ's, or are ours, with the reason:

    queue-address        sqlite://mqlite.db    a copied file must work without a broker; as in MailerQ, what follows
                                               `sqlite://` is the path, so `sqlite:///var/x.db` is /var/x.db
    rabbitmq-persistent  true (false)          a 250 is a promise, and must survive a restart of the broker
    smtp-range           loopback (everybody)  nobody becomes an open relay by leaving a line out or empty; an
                                               installation that wants everybody writes 0.0.0.0/0,::/0
    smtp-sink-address    empty (0.0.0.0)       the same thing said plainly; 0.0.0.0 still means none
    lock                 empty (/tmp/mailerq.pid)  a name that anybody can guess in a directory that anybody can write
                                               to is an invitation, and two copies on one host must both start
    application-log      stderr (*)            who starts a program wants to see why it stops
    daemon               false (true)          supervisors and containers want the process in the foreground
    smtp-auth-clear      false, ours (taken)   a password that has crossed a network in clear is nobody's secret
    smtp-client-*        ours                  a stranger is a client outside smtp-range, counted by address, in IPv6 by
                                               /64; 50 connections at once is Postfix's limit too
    send-log-file        empty (send.log)      no file but the queue appears in the working directory unasked
    smtp-connections     500 (*)               fits the usual limit of 1024 open files
    smtp-connections-in  nine tenths (*)       a tenth is reserved for the other direction; smtp-connections-out too
    dns-timeout          0 (*)                 0: as /etc/resolv.conf says, as when MailerQ's is empty; dns-interval too
"""

from __future__ import annotations

from typing import NamedTuple

from mqlite.settings_kinds import (
    ADDRESS,
    ADDRESSES,
    COUNT,
    DURATION,
    FLAG,
    HOST,
    INTEGER,
    INTERVALS,
    LIST,
    NAME,
    NETWORKS,
    PATH,
    PORT,
    PORTS,
    QUEUE,
    QUEUE_NAME,
    SECONDS,
    SECRET,
    SIZE,
    TEXT,
    Kind,
    one_of,
    some_of,
    url,
    urls,
)

HONOURED = "honoured"
NOT_YET = "not yet"
IGNORED = "ignored"


class Setting(NamedTuple):
    """A row of the table; see the docstring of the module for the columns."""

    name: str
    kind: Kind
    status: str
    default: str
    help: str


BROKERS    = urls("sqlite", "amqp", "amqps")
DATABASE   = url("sqlite", "mysql", "postgresql")
STORE      = url("dir", "directory", "sqlite", "couchbase", "mongodb", "mysql", "postgresql", "s3")
LOGIN      = url("hardcoded", "ldap", "radius", "users", "http", "https", "file", "exec")
PROXY      = url("http", "socks")
WEB        = url("http", "https")
QUEUE_TYPE = one_of("classic", "quorum")
ENCODING   = one_of("gzip")
EXACTNESS  = one_of("strict", "loose")
POLICY     = one_of("all", "in", "out", "none")
RETURN     = one_of("FULL", "HDRS")
EVENTS     = some_of("NEVER", "SUCCESS", "FAILURE", "DELAY")
CHECKS     = some_of("spf", "dkim", "dmarc", "spam")
PLACES     = some_of("local", "nonlocal")
GENERATION = one_of("3", "5")
LINE_ENDS  = one_of("refuse", "normalise")

_RETRY = "600,600,1800,1800,3600,3600,7200"
_WWW = "/usr/share/mailerq/current/www"

# MailerQ's own formats.
_SEND = ("[{$date}] {$result.state}:{$result.result} {$attempt} <{if $email.envelope}{$email.envelope}{/if}> "
         "<{$email.recipient}> [{$result.from}] [{$result.to}] {$email.tags} {$result.code} {$result.status} "
         "{$result.description}")
_RECEIVED = ("[{$date}]{if $json.message_id} {$json.message_id} {/if}<{$json.envelope}> <{$json.recipient}> "
             "[{$json.connection.remote_ip}] [{$json.connection.local_ip}]")

_Rows = tuple[tuple[str, Kind, str, str, str], ...]

_QUEUES: _Rows = (
    ("queue-address",         BROKERS,    HONOURED, "sqlite://mqlite.db", "where the queues are"),
    ("rabbitmq-outbox",       QUEUE_NAME, HONOURED, "outbox",  "messages to deliver, the only queue that is consumed"),
    ("rabbitmq-inbox",        QUEUE,      HONOURED, "=rabbitmq-outbox", "messages received; empty: they are discarded"),
    ("rabbitmq-results",      QUEUE,      HONOURED, "results", "every final result, good or bad"),
    ("rabbitmq-success",      QUEUE,      HONOURED, "",        "results of messages that were delivered"),
    ("rabbitmq-failure",      QUEUE,      HONOURED, "",        "results of messages that were given up"),
    ("rabbitmq-retry",        QUEUE,      HONOURED, "",        "attempts that failed and will be made again"),
    ("rabbitmq-local",        QUEUE,      HONOURED, "",        "messages received for a local address"),
    ("rabbitmq-reports",      QUEUE,      HONOURED, "",        "reports (DSN, DMARC...) received for a local address"),
    ("rabbitmq-refused",      QUEUE,      HONOURED, "",        "messages that were received and then refused"),
    ("rabbitmq-dsn",          QUEUE,      HONOURED, "",        "status notifications (DSN) that we make; empty: none"),
)

_RABBITMQ: _Rows = (
    ("rabbitmq-verify",       FLAG,       HONOURED, "true",    "check the certificate of the broker (amqps)"),
    ("rabbitmq-exchange",     TEXT,       HONOURED, "",        "exchange to publish to; empty: the default exchange"),
    ("rabbitmq-declare",      FLAG,       HONOURED, "true",    "declare queues and exchange at start"),
    ("rabbitmq-durable",      FLAG,       HONOURED, "true",    "queues survive a restart of the broker"),
    ("rabbitmq-persistent",   FLAG,       HONOURED, "true",    "messages survive a restart of the broker"),
    ("rabbitmq-lazy",         FLAG,       HONOURED, "false",   "declare lazy queues, which keep messages on disk"),
    ("rabbitmq-queue-type",   QUEUE_TYPE, HONOURED, "classic", "type of the queues that are declared (mqlite's own)"),
    ("rabbitmq-maxpriority",  INTEGER,    HONOURED, "0",       "declare priority queues with so many levels; 0: none"),
    ("rabbitmq-encoding",     ENCODING,   HONOURED, "",        "compress what is published"),
    ("rabbitmq-qos",          COUNT,      HONOURED, "1000",    "messages that a consumer holds at most"),
    ("rabbitmq-minqos",       COUNT,      NOT_YET,  "100",     "messages that a slowed consumer still holds"),
    ("rabbitmq-flush-qos",    COUNT,      NOT_YET,  "1000",    "messages held at most while a queue is flushed"),
    ("rabbitmq-throttle",     COUNT,      HONOURED, "100",     "messages published and not yet confirmed"),
    ("rabbitmq-consumers",    COUNT,      NOT_YET,  "1",       "consumers of the outbox"),
    ("rabbitmq-publishers",   COUNT,      NOT_YET,  "1",       "connections to publish over"),
)

_SMTP_IN: _Rows = (
    ("smtp-ip",               ADDRESSES,  HONOURED, "",        "addresses to listen on; empty: all"),
    ("smtp-port",             PORTS,      HONOURED, "25",      "ports, such as 25,1024-1026; empty: no SMTP server"),
    ("smtp-range",            NETWORKS,   HONOURED, "127.0.0.0/8,::1/128", "networks that may relay"),
    ("smtp-maxsize",          SIZE,       HONOURED, "100MB",   "largest message accepted"),
    ("smtp-timeout",          DURATION,   HONOURED, "300",     "a client that is silent for so long is dropped"),
    ("smtp-connections",      COUNT,      HONOURED, "500",     "connections open at once, in and out together"),
    ("smtp-connections-in",   INTEGER,    HONOURED, "0",       "of these, at most so many incoming; 0: nine tenths"),
    ("smtp-max-recipients",   COUNT,      HONOURED, "1000",    "recipients of a message"),
    ("smtp-max-header",       SIZE,       HONOURED, "1MB",     "largest header of a message"),
    ("smtp-max-hops",         COUNT,      HONOURED, "50",      "Received lines of a message; more mean a loop"),
    ("smtp-max-errors",       COUNT,      HONOURED, "20",      "refused commands between two messages"),
    ("smtp-max-commands",     COUNT,      HONOURED, "100",     "other commands of a stranger between two messages"),
    ("smtp-min-rate",         INTEGER,    HONOURED, "500",     "bytes a second that messages must come with; 0: any"),
    ("smtp-session-timeout",  DURATION,   HONOURED, "10800",   "a stranger's session ends after so long"),
    ("smtp-greeting-delay",   SECONDS,    HONOURED, "0",       "strangers who speak within it get no greeting"),
    ("smtp-client-connections", INTEGER,  HONOURED, "50",      "connections of a stranger at once, per worker; 0: any"),
    ("smtp-client-connection-rate", INTEGER, HONOURED, "0",    "connections of a stranger in a minute; 0: any number"),
    ("smtp-client-message-rate", INTEGER, HONOURED, "0",       "messages of a stranger in a minute; 0: any number"),
    ("smtp-client-recipient-rate", INTEGER, HONOURED, "0",     "recipients of a stranger in a minute; 0: any number"),
    ("smtp-bare-line-ends",   LINE_ENDS,  HONOURED, "refuse",  "messages with a bare CR or LF: refuse or normalise"),
    ("smtp-proxy",            NETWORKS,   HONOURED, "",        "networks whose connections begin with a PROXY header"),
    ("smtp-extract",          FLAG,       HONOURED, "true",    "x-mq-* headers of messages become properties"),
    ("smtp-secure-port",      PORTS,      HONOURED, "",        "ports that speak TLS from the first byte"),
    ("smtp-certificate",      LIST,       HONOURED, "",        "certificates for STARTTLS and the secure ports"),
    ("smtp-key",              LIST,       HONOURED, "",        "private key of each; empty: with the certificate"),
    ("smtp-ciphers",          TEXT,       HONOURED, "",        "ciphers for TLS 1.2, in OpenSSL's notation"),
    ("smtp-auth",             LOGIN,      HONOURED, "",        "who may log in, and must before sending"),
    ("smtp-auth-clear",       FLAG,       HONOURED, "false",   "take logins in clear from everywhere (mqlite's own)"),
    ("smtp-threads",          COUNT,      HONOURED, "1",       "threads for SMTP, in and out, in each process"),
    ("smtp-validate-address", EXACTNESS,  HONOURED, "strict",  "how exact addresses in MAIL FROM and RCPT TO must be"),
    ("smtp-check",            CHECKS,     NOT_YET,  "",        "checks to run on received messages"),
    ("smtp-auth-results",     PLACES,     NOT_YET,  "",        "messages that get an authentication-results header"),
    ("smtp-protection",       FLAG,       NOT_YET,  "false",   "turn away the addresses on the console's blacklist"),
    ("dsn-advertise",         FLAG,       HONOURED, "false",   "offer the DSN extension (RFC 3461)"),
    ("spamassassin-host",     HOST,       NOT_YET,  "localhost", "host of the SpamAssassin daemon"),
    ("spamassassin-port",     PORT,       NOT_YET,  "783",     "port of the SpamAssassin daemon"),
)

_SMTP_OUT: _Rows = (
    ("smtp-connections-out",  INTEGER,    HONOURED, "0",       "of smtp-connections, at most so many; 0: nine tenths"),
    ("smtp-default-ips",      ADDRESSES,  HONOURED, "",        "addresses to send from; empty: the system chooses"),
    ("smarthost",             HOST,       HONOURED, "",        "host that all mail goes to, for delivery from there"),
    ("smarthost-port",        PORT,       HONOURED, "25",      "port of the smarthost"),
    ("smtp-sink-address",     HOST,       HONOURED, "",        "connect here whatever the destination (for tests)"),
    ("smtp-sink-port",        PORT,       HONOURED, "25",      "port of the sink"),
    ("max-delivertime",       DURATION,   HONOURED, "86400",   "give up so long after the first pick-up"),
    ("max-attempts",          INTEGER,    HONOURED, "0",       "give up after so many attempts; 0: no limit"),
    ("retry-interval",        INTERVALS,  HONOURED, _RETRY,    "waits between attempts, the last one repeats"),
    ("smarthost-username",    TEXT,       HONOURED, "",        "name to log in to the smarthost with"),
    ("smarthost-password",    SECRET,     HONOURED, "",        "password to log in to the smarthost with"),
    ("smtp-sink-username",    TEXT,       HONOURED, "",        "name to log in to the sink with"),
    ("smtp-sink-password",    SECRET,     HONOURED, "",        "password to log in to the sink with"),
    ("smtp-mappable-ips",     NETWORKS,   HONOURED, "",        "mail received on these is sent from them too"),
    ("smtp-unmappable-ips",   NETWORKS,   HONOURED, "",        "exceptions to smtp-mappable-ips"),
    ("validate-envelope",     EXACTNESS,  HONOURED, "strict",  "how exact the envelope address of a message must be"),
    ("validate-recipient",    EXACTNESS,  HONOURED, "strict",  "how exact the recipient of a message must be"),
    ("dsn-notify",            EVENTS,     HONOURED, "",        "events to be notified of, unless the message says"),
    ("dsn-ret",               RETURN,     HONOURED, "",        "what notifications return, unless the message says"),
)

_DNS: _Rows = (
    ("dns-min-ttl",           DURATION,   HONOURED, "60",      "answers are kept at least so long"),
    ("dns-timeout",           SECONDS,    HONOURED, "0",       "wait after the last try; 0: the system's"),
    ("dns-interval",          SECONDS,    HONOURED, "0",       "wait before a question is repeated; 0: the system's"),
    ("dns-attempts",          COUNT,      HONOURED, "5",       "times that a question is sent"),
    ("dns-capacity",          COUNT,      HONOURED, "100",     "lookups under way at once"),
    ("dns-rotate",            FLAG,       HONOURED, "false",   "spread questions over the name servers"),
    ("dns-sockets",           COUNT,      NOT_YET,  "4",       "sockets over which questions are spread"),
    ("dns-buffersize",        SIZE,       NOT_YET,  "1MB",     "buffers of those sockets"),
)

_PLUGINS: _Rows = (
    ("plugin-directory",      PATH,       HONOURED, "",        "directory whose plugins are loaded, in order of name"),
    ("plugin-timeout",        SECONDS,    HONOURED, "60",      "how long a plugin may be in control of a step"),
    ("plugin-generation",     GENERATION, HONOURED, "",        "3 or 5, for plugins that do not tell which they are"),
    ("plugin-shim",           PATH,       HONOURED, "",        "file to write for plugins in C; empty: in memory"),
)

_SPOOL_DIRECTORY: _Rows = (
    ("spool-directory",       PATH,       HONOURED, "",        "directory to watch for messages"),
    ("spool-fail-directory",  PATH,       HONOURED, "",        "directory for files that could not be used"),
    ("spool-delay",           SECONDS,    HONOURED, "0",       "wait before a file is picked up"),
    ("spool-remove",          FLAG,       HONOURED, "true",    "remove files that were picked up"),
    ("spool-extract",         FLAG,       HONOURED, "true",    "x-mq-* headers of the files become properties"),
    ("spool-open-files",      COUNT,      HONOURED, "10",      "files open at once"),
    ("spool-threads",         COUNT,      HONOURED, "1",       "threads that read the files"),
)

_LOGS: _Rows = (
    ("application-log",       LIST,       HONOURED, "stderr",  "stdout, stderr, syslog or files; empty: no log"),
    ("error-log",             PATH,       HONOURED, "",        "the warnings and worse of the application log, too"),
    ("send-log-file",         PATH,       HONOURED, "",        "log of delivery attempts, a line each"),
    ("send-log-format",       TEXT,       HONOURED, _SEND,     "a line of that log, a template"),
    ("send-log-directory",    PATH,       HONOURED, "",        "older way to name that log"),
    ("send-log-prefix",       TEXT,       HONOURED, "send.log", "its name in send-log-directory"),
    ("send-bin-log-file",     PATH,       NOT_YET,  "",        "log of delivery attempts for the console"),
    ("received-log-file",     PATH,       HONOURED, "",        "log of messages received over SMTP, a line each"),
    ("received-log-format",   TEXT,       HONOURED, _RECEIVED, "a line of that log, a template"),
    ("received-log-directory", PATH,      HONOURED, "",        "older way to name that log"),
    ("received-log-prefix",   TEXT,       HONOURED, "received.log", "its name in received-log-directory"),
    ("received-bin-log-file", PATH,       NOT_YET,  "",        "log of received messages for the console"),
)

_CONSOLE: _Rows = (
    ("www-ip",                ADDRESS,    NOT_YET,  "0.0.0.0", "address of the console"),
    ("www-port",              PORTS,      NOT_YET,  "8485",    "port of the console; empty: none"),
    ("www-secure-port",       PORTS,      NOT_YET,  "",        "port of the console over TLS"),
    ("www-certificate",       PATH,       NOT_YET,  "",        "certificate of the console"),
    ("www-private-key",       PATH,       NOT_YET,  "",        "private key of that certificate"),
    ("www-ciphers",           TEXT,       NOT_YET,  "",        "cipher list, in OpenSSL's notation"),
    ("www-auth",              LOGIN,      NOT_YET,  "",        "who may log in to the console"),
    ("www-connections",       COUNT,      NOT_YET,  "10",      "connections open at once"),
    ("www-dir",               PATH,       NOT_YET,  _WWW,      "directory of MailerQ's own console pages"),
    ("www-host",              HOST,       NOT_YET,  "",        "host name of the console in links"),
    ("www-url",               WEB,        NOT_YET,  "",        "address of the console in links"),
    ("www-cache-control",     TEXT,       NOT_YET,  "",        "Cache-Control header of the pages"),
    ("www-log-file",          PATH,       NOT_YET,  "",        "log of requests"),
    ("www-log-format",        TEXT,       NOT_YET,  "",        "a line of that log"),
    ("www-bin-log-file",      PATH,       NOT_YET,  "",        "log of requests for the console"),
    ("render-useragent",      TEXT,       NOT_YET,  "",        "the only browser that may render messages"),
)

_DATABASE: _Rows = (
    ("database-address",      DATABASE,   HONOURED, "",        "database of limits, keys and other run-time settings"),
    ("database-ttl",          DURATION,   HONOURED, "600",     "time after which it is read anew in any case"),
    ("database-validate",     FLAG,       HONOURED, "true",    "check the tables at start"),
    ("purge-database",        FLAG,       HONOURED, "false",   "make all tables anew at start"),
    ("repair-database",       FLAG,       HONOURED, "false",   "mend the tables at start"),
)

_MESSAGE_STORE: _Rows = (
    ("storage-address",       STORE,      NOT_YET,  "",        "store for message bodies, outside the queues"),
    ("storage-policy",        POLICY,     NOT_YET,  "all",     "which bodies are stored"),
    ("storage-ttl",           DURATION,   NOT_YET,  "3600",    "bodies stay so long beyond the time to deliver"),
    ("storage-timeout",       DURATION,   NOT_YET,  "20",      "wait for the store"),
    ("storage-reschedule",    SECONDS,    NOT_YET,  "120",     "wait before a body not found is looked for again"),
    ("storage-threads",       COUNT,      NOT_YET,  "1",       "connections to the store"),
)

_CLUSTER: _Rows = (
    ("cluster-address",       BROKERS,    NOT_YET,  "=queue-address", "broker that the instances share"),
    ("cluster-exchange",      TEXT,       NOT_YET,  "cluster", "exchange that the instances share"),
    ("cluster-timeout",       DURATION,   NOT_YET,  "1",       "wait for the instances when they are listed"),
    ("cluster-verify",        FLAG,       NOT_YET,  "true",    "check the certificate of that broker (amqps)"),
    ("notify-cluster",        FLAG,       NOT_YET,  "false",   "tell the other instances to reload"),
)

_DOWNLOADS: _Rows = (
    ("proxy-server",          PROXY,      NOT_YET,  "",        "proxy for outgoing HTTP"),
    ("download-proxy",        PROXY,      NOT_YET,  "=proxy-server", "proxy for resources of messages"),
    ("download-cache",        STORE,      NOT_YET,  "",        "store for downloaded resources"),
    ("download-ttl",          DURATION,   NOT_YET,  "3600",    "resources stay so long at most"),
    ("download-user-agent",   TEXT,       NOT_YET,  "",        "User-Agent header of downloads"),
    ("download-blacklist",    LIST,       NOT_YET,  "",        "networks from which nothing is downloaded"),
    ("download-whitelist",    LIST,       NOT_YET,  "",        "exceptions to download-blacklist"),
    ("download-log-file",     PATH,       NOT_YET,  "",        "log of downloads"),
    ("download-log-format",   TEXT,       NOT_YET,  "",        "a line of that log"),
    ("download-log-directory", PATH,      NOT_YET,  "",        "older way to name that log"),
    ("download-log-prefix",   TEXT,       NOT_YET,  "",        "older way to name that log"),
    ("download-bin-log-file", PATH,       NOT_YET,  "",        "log of downloads for the console"),
)

_PROCESS: _Rows = (
    ("hostname",              HOST,       HONOURED, "",        "our name in greeting and EHLO; empty: the host's own"),
    ("server-id",             NAME,       HONOURED, "1",       "keeps the identifiers of several instances apart"),
    ("user",                  TEXT,       HONOURED, "",        "user to become once the ports are open"),
    ("lock",                  PATH,       HONOURED, "",        "file with the process id, so that we start only once"),
    ("control-socket",        PATH,       HONOURED, "",        "for `why` (mqlite's own); empty: beside queue or lock"),
    ("processes",             COUNT,      HONOURED, "1",       "worker processes (mqlite's own)"),
    ("daemon",                FLAG,       NOT_YET,  "false",   "run in the background"),
    ("paused",                FLAG,       HONOURED, "false",   "start without sending"),
    ("loopback",              FLAG,       NOT_YET,  "false",   "named by MailerQ without a description"),
    ("license",               SECRET,     IGNORED,  "",        "mqlite needs none"),
)

GROUPS = tuple(
    (title, tuple(Setting(*row) for row in rows))
    for title, rows in (
        ("Queues", _QUEUES),
        ("RabbitMQ", _RABBITMQ),
        ("SMTP in", _SMTP_IN),
        ("SMTP out", _SMTP_OUT),
        ("DNS", _DNS),
        ("Plugins", _PLUGINS),
        ("Spool directory", _SPOOL_DIRECTORY),
        ("Logs", _LOGS),
        ("Console", _CONSOLE),
        ("Database", _DATABASE),
        ("Message store", _MESSAGE_STORE),
        ("Cluster", _CLUSTER),
        ("Downloads", _DOWNLOADS),
        ("Process", _PROCESS),
    )
)
SETTINGS = tuple(setting for _, settings in GROUPS for setting in settings)

# Families of keys that are accepted without a word, whatever follows.
IGNORED_FAMILIES = ("heartbeat", "disable-crash-")

# Other spellings, from MailerQ's documentation of this and older versions.
ALIASES = {
    "rabbitmq-address": "queue-address",
    "database":         "database-address",
    "smtp-defaultips":  "smtp-default-ips",
    "smtp-privatekey":  "smtp-key",
    "smtp-sink-ip":     "smtp-sink-address",
    "www-privatekey":   "www-private-key",
}
