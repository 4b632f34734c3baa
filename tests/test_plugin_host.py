"""The plugin host: C plugins of both generations, and Python plugins, asked by the real server.

A virtual clock moves the timers that plugins start. Each C source is a plugin with one idea.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from mqlite.errors import ConfigError
from mqlite.plugin.loader import load_plugins
from tests.support.c_plugin import build_plugin
from tests.support.plugins import LOG, SEAT, PluginBench, build

Make = Callable[..., PluginBench]
OK = b'220 250 250 250 354 250 221'
GO = '''static MQ_Connection *held;
__attribute__((unused)) static void go(void *how) {
    (how == (void *)1 ? MQ_complete : how == (void *)2 ? MQ_retry : MQ_continue)(held); }
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / 'plugins'


@pytest.fixture
def make(folder: Path) -> Iterator[Make]:
    made: list[PluginBench] = []

    def bench(*sources: str, old: bool = False, python: str = '', options: tuple[str, ...] = (),
              **limits: bool) -> PluginBench:
        folder.mkdir(exist_ok=True)
        for number, source in enumerate(sources, 1):
            build(folder, source, *options, name=f'{number}0-test-{folder.parent.name}', old=old)
        if python:
            (folder / '50-test.py').write_text(python)
        made.append(PluginBench(folder, **limits))
        return made[-1]

    yield bench
    for one in made:
        one.close()


TRACE = """
#include <stdio.h>
#define SAY(...) do { char t[256]; snprintf(t, sizeof t, __VA_ARGS__); MQ_log(MQ_INFO, t); } while (0)
void mq_initialize(void) { SAY("initialize"); }
bool mq_smtp_in_connect(MQ_Context *x, MQ_Connection *c) { (void)x;
    SAY("connect %d %d %d", MQ_fileDescriptor(c) > 2, MQ_secure(c), MQ_authenticated(c)); return false; }
bool mq_smtp_in_data(MQ_Context *x, MQ_Connection *c, const char *mime, size_t size) { (void)x; (void)c;
    SAY("data %zu %.7s", size, mime); return false; }
bool mq_smtp_in_close(MQ_Context *x, MQ_Connection *c) { (void)x; (void)c; SAY("close"); return false; }
"""
NEW_TRACE = TRACE + """
void mq_context_initialize(MQ_Context *x) { (void)x; SAY("context"); }
bool mq_smtp_in_mailfrom(MQ_Context *x, MQ_Connection *c, MQ_Address *a) { (void)x; (void)c;
    SAY("mailfrom %s", MQ_email(a) ? MQ_email(a) : "null"); return false; }
bool mq_smtp_in_rcptto(MQ_Context *x, MQ_Connection *c, MQ_Address *a) { (void)x; (void)c;
    SAY("rcptto %s %d", MQ_email(a), MQ_local(a)); return false; }
bool mq_smtp_in_message(MQ_Context *x, MQ_Connection *c, MQ_Message *m) { (void)x; (void)c;
    SAY("message %s %s %.8s", MQ_email(MQ_envelope(m)), MQ_email(MQ_recipient(m)), MQ_mime(m)); return false; }
"""
OLD_TRACE = TRACE + """
bool mq_context_initialize(MQ_Context *x) { (void)x; SAY("context"); return false; }
bool mq_smtp_in_mailfrom(MQ_Context *x, MQ_SmtpConnection *c, const char *a, size_t n) { (void)x; (void)c;
    SAY("mailfrom %.*s", (int)n, a); return false; }
bool mq_smtp_in_rcptto(MQ_Context *x, MQ_SmtpConnection *c, const char *a, size_t n) { (void)x; (void)c;
    SAY("rcptto %.*s 0", (int)n, a); return false; }
bool mq_smtp_in_message(MQ_Context *x, MQ_SmtpConnection *c, MQ_Message *m) { (void)x; (void)c;
    SAY("message %s %s %.8s", MQ_Envelope(m), MQ_Recipient(m), MQ_Mime(m)); return false; }
"""


@pytest.mark.parametrize(('source', 'old'), [(NEW_TRACE, False), (OLD_TRACE, True)], ids=['5', '3'])
def test_every_step_of_a_message(make: Make, source: str, old: bool) -> None:
    bench = make(source, old=old)
    assert bench.run(bench.send('b@example.org', 'c@example.org')) == b'220 250 250 250 250 354 250 221'
    assert LOG.said() == [
        'initialize', 'context', 'connect 1 0 0', 'mailfrom a@example.org', 'rcptto b@example.org 0',
        'rcptto c@example.org 0', 'data 20 Subject', 'message a@example.org b@example.org Received',
        'message a@example.org c@example.org Received', 'close']
    assert LOG.lines == []


def step(name: str) -> str:
    """The beginning of the definition of a callback of generation 5; the connection is `c`."""
    more = {'mailfrom': ', MQ_Address *a', 'rcptto': ', MQ_Address *a', 'message': ', MQ_Message *m',
            'data': ', const char *a, size_t n'}.get(name, '')
    unused = {'message': '(void)m;', 'mailfrom': '(void)a;', 'rcptto': '(void)a;', 'data': '(void)a; (void)n;'}
    return f'bool mq_smtp_in_{name}(MQ_Context *x, MQ_Connection *c{more}) {{ (void)x; (void)c; {unused.get(name, "")}'


# refusing

@pytest.mark.parametrize(('name', 'codes'), [
    ('connect',  b'550'),
    ('mailfrom', b'220 250 550 503 503 221'),
    ('rcptto',   b'220 250 250 550 554 221'),
    ('data',     b'220 250 250 250 354 550 221'),
    ('message',  b'220 250 250 250 354 550 221'),
])
@pytest.mark.parametrize('how', ['MQ_reject(c, 550, "5.7.1", "No\\r\\nentry"); return false; }',
                                 'MQ_send(c, "550 5.7.1 No entry\\r\\n", 20); MQ_complete(c); return true; }'])
def test_a_step_is_refused(make: Make, name: str, codes: bytes, how: str) -> None:
    second = step(name) + ' MQ_log(MQ_INFO, "asked"); return false; }'
    bench = make(step(name) + how, second)

    async def talk() -> bytes:
        if name == 'connect':
            stream = await bench.client(greeted=False)
            return (await bench.read_line(stream))[:3] + await bench.read_line(stream)
        return await bench.send()

    assert bench.run(talk()) == codes
    assert LOG.said() == [] and bench.documents() == []


def test_a_421_ends_the_session(make: Make) -> None:
    bench = make(step('mailfrom') + 'MQ_reject(c, 421, NULL, "bye"); return false; }')

    async def talk() -> bytes:
        stream = await bench.client()
        await bench.ask(stream, b'EHLO c.example\r\n')
        return b''.join([*(await bench.ask(stream, b'MAIL FROM:<a@b.example>\r\n')), await bench.read_line(stream)])

    assert bench.run(talk()) == b'421 bye\r\n'


def test_what_a_plugin_sends_comes_in_its_order(make: Make) -> None:
    bench = make(step('mailfrom') + 'MQ_send(c, "250-first\\r\\n", 11); return false; }')

    async def talk() -> list[bytes]:
        stream = await bench.client()
        await bench.ask(stream, b'EHLO c.example\r\n')
        return await bench.ask(stream, b'NOOP\r\nMAIL FROM:<a@b.example>\r\n') + await bench.ask(stream, b'')

    assert bench.run(talk()) == [b'250 2.0.0 Ok\r\n', b'250-first\r\n', b'250 2.1.0 Sender ok\r\n']


# what plugins change

def test_login_and_local_addresses(make: Make) -> None:
    """Both open what is closed to this client: a login to everywhere, a local address to its own queue."""
    bench = make(step('rcptto') + """
        if (!strcmp(MQ_email(a), "here@example.org")) MQ_setLocal(a, true);
        if (!strcmp(MQ_email(a), "login@example.org")) MQ_setAuthenticated(c, true);
        return false; }""", relay=False)
    assert bench.run(bench.send('b@example.org')) == b'220 250 250 550 554 221'
    assert bench.run(bench.send('here@example.org')) == OK
    assert bench.run(bench.send('login@example.org')) == OK
    assert [document['recipient'] for document in bench.documents('local')] == ['here@example.org']
    assert [document['recipient'] for document in bench.documents()] == ['login@example.org']


def test_a_message_is_changed_for_one_recipient(make: Make) -> None:
    bench = make(step('message') + """
        if (strcmp(MQ_email(MQ_recipient(m)), "b@example.org")) return false;
        MQ_setEnvelope(m, "new@example.org", 15); MQ_setRecipient(m, "other@example.org", 17);
        MQ_setMime(m, "Subject: new\\n\\nx", 15); MQ_setLocal(m, true); return false; }""")
    assert bench.run(bench.send('b@example.org', 'c@example.org'))[-7:] == b'250 221'
    [local], [other] = bench.documents('local'), bench.documents()
    assert (local['envelope'], local['recipient'], local['mime']) == (
        'new@example.org', 'other@example.org', 'Subject: new\r\n\r\nx\r\n')
    assert (other['envelope'], other['recipient']) == ('a@example.org', 'c@example.org')
    assert other['mime'].endswith('body\r\n')


JSON = {
    'libfastjson': ('#include <libfastjson/json.h>\n', 'fjson', 'MQ_json', '-lfastjson'),
    'json-c':      ('#include <json-c/json.h>\n', 'json', 'MQ_Json', '-ljson-c'),
}


@pytest.mark.parametrize('library', JSON)
def test_json_that_is_edited_in_c_is_published(make: Make, library: str) -> None:
    include, prefix, get, option = JSON[library]
    bench = make(include + step('message') + f"""
        struct {prefix}_object *j = {get}(m), *tags = {prefix}_object_new_array();
        {prefix}_object_array_add(tags, {prefix}_object_new_string("tag"));
        {prefix}_object_object_add(j, "tags", tags);
        {prefix}_object_object_add(j, "recipient", {prefix}_object_new_string("json@example.org"));
        {prefix}_object_object_del(j, "connection"); return false; }}""",
                 step('message') + 'MQ_log(MQ_INFO, MQ_email(MQ_recipient(m))); return false; }', options=(option,))
    assert bench.run(bench.send(data=b'Subject: \xff\r\n\r\n')) == OK
    [document] = bench.documents()
    assert document['tags'] == ['tag'] and document['recipient'] == 'json@example.org'
    assert 'connection' not in document and 'Subject: \udcff' in document['mime']
    assert LOG.said() == ['json@example.org'] and LOG.lines == []


def test_data_of_a_connection_and_of_a_context_is_the_plugins_own(make: Make) -> None:
    count = """
        long n = (long)MQ_connectionData(c) + 1; MQ_setConnectionData(c, (void *)n);
        long k = (long)MQ_contextData(x) + STEP; MQ_setContextData(x, (void *)k);
        char t[64]; snprintf(t, sizeof t, "%ld %ld", n, k); MQ_log(MQ_INFO, t); return false; }"""
    bench = make(*('#include <stdio.h>\n' + ''.join(step(name) + count.replace('STEP', by)
                                                  for name in ('mailfrom', 'rcptto')) for by in ('1', '10')))
    bench.run(bench.send())
    bench.run(bench.send())
    assert LOG.said() == ['1 1', '1 10', '2 2', '2 20', '1 3', '1 30', '2 4', '2 40']


# timers and descriptors

def test_timers(make: Make) -> None:
    bench = make("""
        static MQ_Timer *stopped, *moved; static MQ_Connection *held;
        static void on_stopped(void *d) { (void)d; MQ_log(MQ_INFO, "never"); }
        static void on_moved(void *d) { MQ_log(MQ_INFO, d); MQ_continue(held); MQ_stopTimer(moved); }
        """ + step('mailfrom') + """ held = c;
        stopped = MQ_startTimer(x, 5, on_stopped, NULL); moved = MQ_startTimer(x, 5, on_moved, "moved");
        MQ_stopTimer(stopped); MQ_resetTimer(moved, 20); return true; }""")
    before = bench.clock.monotonic()
    assert bench.run(bench.send()) == OK
    assert LOG.said() == ['moved'] and 20 <= bench.clock.monotonic() - before < 21


def test_a_descriptor_is_watched(make: Make) -> None:
    bench = make("""
        #include <unistd.h>
        static int ends[2]; static MQ_Connection *held;
        static void on_ready(MQ_IOWatcher *w, int fd, int events, void *data) {
            char got[8] = ""; if (read(fd, got, 7) > 0 && (events & MQ_READ)) MQ_log(MQ_INFO, got);
            MQ_log(MQ_INFO, data); MQ_ioUnwatch(w); close(ends[0]); close(ends[1]); MQ_continue(held); }
        static void on_timer(void *d) { (void)d; if (write(ends[1], "ping", 4) < 0) MQ_log(MQ_CRIT, "write"); }
        """ + step('mailfrom') + """ held = c;
        if (pipe(ends)) return false;
        if (MQ_ioWatch(x, 9999, MQ_READ, on_ready, NULL)) MQ_log(MQ_CRIT, "watched what is not open");
        MQ_ioWatch(x, ends[0], MQ_READ, on_ready, "data"); MQ_startTimer(x, 1, on_timer, NULL); return true; }""")
    assert bench.run(bench.send()) == OK
    assert LOG.said() == ['ping', 'data']
    assert [line for line in LOG.lines if '9999' in line] == LOG.lines and len(LOG.lines) == 1


def test_handles_do_not_pile_up(make: Make) -> None:
    bench = make(NEW_TRACE)
    handles = bench.host._plugins[0]._handles       # type: ignore[attr-defined]
    bench.run(bench.send())
    before = len(handles)
    for _ in range(20):
        bench.run(bench.send('b@example.org', 'c@example.org'))
    assert len(handles) == before
    LOG.said()


# compiled elsewhere

FOREIGN = """
#include <stdio.h>
#include <string.h>
typedef struct opaque opaque;
extern void MQ_log(int, const char *); extern opaque *TIMER(opaque *, float, void (*)(void *), void *);
extern size_t SEND(opaque *, const void *, size_t); extern void SET_DATA(opaque *, void *); extern void *DATA(opaque *);
static void say(const char *step, const char *what) { char t[99]; snprintf(t, sizeof t, "%s %s", step, what);
    MQ_log(3, t); }
int mq_version(void) { return 20190923; }
"""
FOREIGN_5 = FOREIGN.replace('TIMER', 'MQ_startTimer').replace('SEND', 'MQ_send').replace(
    'SET_DATA', 'MQ_setConnectionData').replace('DATA', 'MQ_connectionData') + """
extern const char *MQ_email(opaque *); extern void MQ_continue(opaque *); extern opaque *MQ_recipient(opaque *);
static void later(void *connection) { say("later", MQ_connectionData(connection)); MQ_continue(connection); }
_Bool mq_smtp_in_rcptto(opaque *context, opaque *connection, opaque *address) {
    say("rcptto", MQ_email(address)); MQ_setConnectionData(connection, "data");
    MQ_send(connection, "250-sent\\r\\n", 10);
    return MQ_startTimer(context, 5, later, connection) != 0; }
_Bool mq_smtp_in_message(opaque *context, opaque *connection, opaque *message) { (void)context; (void)connection;
    say("message", MQ_email(MQ_recipient(message))); return 0; }
"""
FOREIGN_3 = FOREIGN.replace('TIMER', 'MQ_TimerStart').replace('SEND', 'MQ_SmtpSend').replace(
    'SET_DATA', 'MQ_SetSmtpData').replace('DATA', 'MQ_SmtpData') + """
extern void MQ_Continue(opaque *); extern const char *MQ_Recipient(opaque *);
static opaque *held;
static void later(void *context) { say("later", MQ_SmtpData(held)); MQ_Continue(context); }
_Bool mq_smtp_in_rcptto(opaque *context, opaque *connection, const char *address, size_t size) { (void)size;
    say("rcptto", address); MQ_SetSmtpData(held = connection, "data"); MQ_SmtpSend(connection, "250-sent\\r\\n", 10);
    return MQ_TimerStart(context, 5, later, context) != 0; }
_Bool mq_smtp_in_message(opaque *context, opaque *connection, opaque *message) { (void)context; (void)connection;
    say("message", MQ_Recipient(message)); return 0; }
"""


@pytest.mark.parametrize('source', [FOREIGN_5, FOREIGN_3], ids=['5', '3'])
def test_a_binary_made_without_our_header(folder: Path, source: str) -> None:
    """Bare prototypes, all symbols resolved when it is loaded, and a version that says nothing: its names tell."""
    folder.mkdir()
    build_plugin(folder, source, '-Wl,-z,now', name=f'10-foreign-{folder.parent.name}')
    bench = PluginBench(folder)

    async def talk() -> list[bytes]:
        stream = await bench.client()
        await bench.talk(stream, b'EHLO c', b'MAIL FROM:<a@example.org>')
        lines = await bench.ask(stream, b'RCPT TO:<b@example.org>\r\n')
        return [*lines, await bench.talk(stream, b'DATA', b'.')]

    before = bench.clock.monotonic()
    assert bench.run(talk()) == [b'250-sent\r\n', b'250 2.1.5 Recipient ok\r\n', b'354 250']
    assert 5 <= bench.clock.monotonic() - before < 6
    assert LOG.said() == ['rcptto b@example.org', 'later data', 'message b@example.org'] and LOG.lines == []
    bench.close()


# loading

@pytest.mark.parametrize(('source', 'text'), [
    ('int seven = 7;', 'has no mq_version'),
    ('int mq_version(void) { return 12345; }', 'plugin-generation'),
    ('extern void no_such_function(void); int mq_version(void) { no_such_function(); return 5; }', 'no_such_function'),
])
def test_what_is_no_plugin_stops_the_start(tmp_path: Path, source: str, text: str) -> None:
    build_plugin(tmp_path, source, name='10-bad')
    with pytest.raises(ConfigError, match=text) as caught:
        load_plugins(str(tmp_path), LOG, 0, '', SEAT)
    assert '10-bad' in str(caught.value)


def test_a_directory_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match='plugin-directory'):
        load_plugins('/no/such/folder', LOG, 0, '', SEAT)


# Python

PYTHON = """
def mq_smtp_in_mailfrom(context, connection, address):
    connection.data = {'from': address.email}

async def mq_smtp_in_rcptto(context, connection, address):
    await context.sleep(10)
    if address.email.startswith('bad'):
        connection.reject(550, '5.1.1', 'nobody')

def mq_smtp_in_data(context, connection, mime):
    context.log(f'{connection.data["from"]} {len(mime)} {connection.secure}')
    context.start_timer(5, connection.continue_)
    return True

def mq_smtp_in_message(context, connection, message):
    message.fields['tags'] = ['python']
    message.set_mime(message.mime + b'footer')
"""


def test_python_does_what_c_does(make: Make) -> None:
    bench = make(python=PYTHON)
    before = bench.clock.monotonic()
    assert bench.run(bench.send('bad@example.org', 'b@example.org')) == b'220 250 250 550 250 354 250 221'
    assert 25 <= bench.clock.monotonic() - before < 26
    [document] = bench.documents()
    assert document['tags'] == ['python'] and document['mime'].endswith('body\r\nfooter\r\n')
    assert LOG.said() == ['a@example.org 20 False']


@pytest.mark.parametrize('body', ['    1 / 0', '    await context.sleep(1)\n    1 / 0'])
def test_an_exception_in_a_python_plugin_defers(make: Make, body: str) -> None:
    bench = make(python=f'async def mq_smtp_in_mailfrom(context, connection, address):\n{body}\n')
    assert bench.run(bench.send()) == b'220 250 451 503 503 221'
    assert '50-test.py failed in mq_smtp_in_mailfrom: ZeroDivisionError' in LOG.lines[0]


def test_a_coroutine_that_takes_too_long_is_ended(make: Make) -> None:
    bench = make(python="""
async def mq_smtp_in_mailfrom(context, connection, address):
    try:
        await context.sleep(1000)
    finally:
        context.log('ended')
""")
    assert bench.run(bench.send()) == b'220 250 451 503 503 221' and LOG.said() == ['ended']


