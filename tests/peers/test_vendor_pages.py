"""Every C snippet of the vendor's plugin pages, of both generations, compiles against our header, and runs.

The pages are not ours to copy. MAILERQ_DOCS names a folder with the folders 3.0 and 5.13 of them, as they stand in the
vendor's public repository of its documentation; without it nothing here can be shown, and the outcome says so.

Snippets are compiled as they stand, with every warning an error. What is not C on the page is in REPAIRS, with the
reason: mended by the smallest change that makes it what it was meant to be.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Callable, NamedTuple

import pytest

from mqlite.plugin.loader import load_plugins
from mqlite.smtp.reply import ClientFailure
from tests.support.exchanger import ClientBench
from tests.support.plugins import LOG, SEAT, PluginBench, make_host
from tests.support.process import ROOT, find_program

DOCS = os.environ.get('MAILERQ_DOCS', '')
GENERATIONS = {'3.0': 3, '5.13': 5}
PAGES = 'mq_*.md', 'plugins.md'
SNIPPETS = {'3.0': 41, '5.13': 47}      # that there are; fewer found would be a mistake of this test

# What a page leaves to the reader: headers of others.
DATABASE, UNIX = '#include <mariadb/mysql.h>', '#include <stdlib.h>\n#include <unistd.h>'
INCLUDES = {'mq_context_initialize': DATABASE, 'mq_context_cleanup': DATABASE,
            'mq_iowatch': UNIX, 'mq_timerstart': UNIX, 'mq_starttimer': UNIX}
# These use none of their arguments, or not all, which -Wextra warns of: no matter of the header.
UNUSED = ('mq_iowatch', 'mq_timerstart', 'mq_starttimer', 'mq_smtp_out_data', 'mq_smtp_out_sent')

CLASH = ('a variable has the name of an argument', [
    (r'char    data\[', 'char    buffer['), (r'read\(fd, data, sizeof\(data\)', 'read(fd, buffer, sizeof(buffer)')])
STDIN = ('the standard input is STDIN_FILENO in C', [(r'\bSTDIN,', 'STDIN_FILENO,')])
TIMERS = ('a structure without `struct`, a member that it has not, `.` for `->`, and a function of another name', [
    (r'\n    Timers \*', r'\n    struct Timers *'), (r'    // set the context\n.*?;\n', ''), (r'timers\.', 'timers->'),
    (r', callback,', ', io_callback,')])
PROSE = ('the fence is not closed: prose follows', [(r';\s+This function .*', ';')])
EITHER = ('the pages give it a message here and an address there; it takes both', [(r'MQ_Message \*', 'void *')])

Repair = tuple[str, list[tuple[str, str]]]
#   page, with the version where it matters
REPAIRS: dict[str, list[Repair]] = {
    'mq_iowatch': [CLASH, STDIN], 'mq_timerstart': [CLASH, STDIN, TIMERS], 'mq_starttimer': [CLASH, STDIN, TIMERS],
    'mq_setenvelope': [PROSE], 'mq_local': [EITHER], 'mq_setlocal': [EITHER],
    '5.13/mq_context_initialize': [('a link of the page stands in the code', [(r'\[(\w+)\]\(\w+\)', r'\1')])],
    '5.13/mq_envelope': [('a type that no page describes; mq_email takes the result', [
        ('MQ_Envelope \\*', 'MQ_Address *')])],
    '5.13/mq_recipient': [('mq_email takes the result, so it is no text', [('const char \\*', 'MQ_Address *')])],
    '5.13/mq_log': [('statements, and the last one without its end', [
        (r'\A(MQ_log.*)\Z', r'void say(void);\nvoid say(void) {\n\1;\n}')])],
}


class Snippet(NamedTuple):
    """A block of code of a page."""

    version: str
    page: str
    number: int
    text: str

    @property
    def repairs(self) -> list[tuple[str, str]]:
        """What is to be changed in this block."""
        rows = REPAIRS.get(f'{self.version}/{self.page}') or REPAIRS.get(self.page, [])
        return [change for _reason, changes in rows for change in changes if re.search(change[0], self.text, re.DOTALL)]

    @property
    def generation(self) -> int:
        return GENERATIONS[self.version]

    @property
    def mended(self) -> str:
        text = self.text
        for pattern, new in self.repairs:
            text = re.sub(pattern, new, text, flags=re.DOTALL)
        return text

    @property
    def options(self) -> list[str]:
        library = ['-lmariadb'] if INCLUDES.get(self.page) == DATABASE else []
        return library + (['-Wno-unused-parameter'] if self.page in UNUSED else [])

    def source(self, text: str) -> str:
        """The whole of what is compiled."""
        return '\n'.join([f'#define MQ_API_GENERATION {self.generation}', '#include <mailerq.h>',
                          INCLUDES.get(self.page, ''), text, ''])


def snippets() -> Iterator[Snippet]:
    for version in GENERATIONS:
        for pattern in PAGES:
            for path in sorted(Path(DOCS, version).glob(pattern)):
                blocks = re.findall(r'^```+(\w*)\n(.*?)(?:^```|\Z)', path.read_text(), re.DOTALL | re.MULTILINE)
                codes = [text.strip() for language, text in blocks if language in ('', 'c', 'cpp')]
                yield from (Snippet(version, path.stem, number, text) for number, text in enumerate(codes, 1))


ALL = list(snippets()) if DOCS else []
pytestmark = pytest.mark.skipif(not DOCS, reason='the vendor\'s pages are not here: MAILERQ_DOCS=FOLDER names a folder '
                                'with 3.0 and 5.13 of them, and nothing is shown without it')


def name(snippet: Snippet) -> str:
    return f'{snippet.version}-{snippet.page}-{snippet.number}'


def compiled(source: str, target: Path, *options: str) -> str:
    """What the compiler says."""
    command: list[str | Path] = [find_program('gcc'), '-shared', '-fPIC', '-Wall', '-Wextra', '-Werror', '-I',
                                 ROOT / 'include', '-o', target, '-x', 'c', '-', *options]
    return subprocess.run(command, input=source, capture_output=True, text=True, timeout=60).stderr


def test_all_pages_are_here() -> None:
    assert {version: sum(one.version == version for one in ALL) for version in GENERATIONS} == SNIPPETS


@pytest.mark.parametrize('snippet', ALL, ids=name)
def test_it_compiles(snippet: Snippet, tmp_path: Path) -> None:
    assert compiled(snippet.source(snippet.mended), tmp_path / 'snippet.so', *snippet.options) == ''


@pytest.mark.parametrize('snippet', [snippet for snippet in ALL if snippet.repairs], ids=name)
def test_it_does_not_as_it_stands(snippet: Snippet, tmp_path: Path) -> None:
    """A repair that is not needed would hide something."""
    assert compiled(snippet.source(snippet.text), tmp_path / 'snippet.so', *snippet.options) != ''


# running

@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / 'plugins'
    made.mkdir()
    return made


def plugin(folder: Path, file: str, snippet: Snippet, more: str = '') -> None:
    """The snippet as a plugin; what it lacks to be one is added behind it."""
    if 'mq_version' not in snippet.text:
        more += 'int mq_version(void) { return MQ_API_VERSION; }\n'
    source = snippet.source(f'{snippet.mended}\n{more}')
    assert compiled(source, folder / f'{file}.so', *snippet.options, '-Wl,-z,now') == ''


@pytest.mark.parametrize('version', GENERATIONS)
def test_every_function_is_found(version: str, folder: Path) -> None:
    """One plugin for each block that declares functions of the host: they are looked for when it is loaded."""
    names = []
    for place, snippet in enumerate(one for one in ALL if one.version == version):
        functions = re.findall(r'\b(MQ_\w+)\([^{]*\);', snippet.mended)
        if functions and '{' not in snippet.mended:
            addresses = ', '.join(f'(void *){function}' for function in functions)
            plugin(folder, f'{place:02}', snippet, f'void *const functions[] = {{ {addresses} }};\n')
            names += functions
    assert len(load_plugins(str(folder), LOG, 0, '', SEAT)) == len(names) > 20
    assert {function[3].isupper() for function in names if function != 'MQ_ev'} == {version == '3.0'}


@pytest.mark.parametrize('version', GENERATIONS)
def test_every_definition_runs(version: str, folder: Path) -> None:
    """All of the pages that define what a plugin exports, side by side, through start, a message in, one out, and stop.

    The two pages on sending take control and never hand it back, as they say themselves: the message is put off.
    """
    for snippet in ALL:
        if snippet.version == version and '{' in snippet.mended and snippet.page not in INCLUDES:
            plugin(folder, f'10-{snippet.page}-{snippet.number}', snippet)
    bench = PluginBench(folder)
    assert bench.run(bench.send()) == b'220 250 250 250 354 250 221'
    bench.run(bench.host.stop())
    bench.close()
    client = ClientBench()
    host = make_host(folder, client.reactor)
    client.start()
    companion = client.session.companion = host.companion(client.session.stream)
    companion.begin({}, 's@a.example', 'r@b.example', b'')
    failure = client.send()
    assert isinstance(failure, ClientFailure) and failure.reply is not None and failure.reply.code == 451
    assert any('did not hand back mq_smtp_out_data' in line for line in LOG.lines)
    client.close()


@pytest.mark.parametrize('version', GENERATIONS)
def test_a_connection_of_the_database_is_kept_in_the_context(version: str, folder: Path) -> None:
    """The two pages on contexts, as one plugin: what the one stores the other finds, and closes."""
    first, second = (one for one in ALL if one.version == version and one.page in (
        'mq_context_initialize', 'mq_context_cleanup'))
    joined = second._replace(text=f'{first.mended}\n{second.mended}')
    plugin(folder, '10-contexts', joined)
    bench = PluginBench(folder)
    [kept] = bench.host.context.slots.values()
    assert kept
    bench.run(bench.host.stop())
    bench.close()
    assert LOG.lines == []


@pytest.fixture
def typed() -> Iterator[Callable[[bytes], object]]:
    """typed(b'text'): what stands on the standard input of this process."""
    ours, (theirs, end) = os.dup(0), os.pipe()
    os.dup2(theirs, 0)
    yield lambda data: os.write(end, data)
    os.dup2(ours, 0)
    for descriptor in (ours, theirs, end):
        os.close(descriptor)


MONITOR = {3: 'bool mq_context_initialize(MQ_Context *context) { monitor(context); return false; }',
           5: 'void mq_context_initialize(MQ_Context *context) { monitor(context); }'}


def monitoring(version: str, pages: Sequence[str], folder: Path) -> PluginBench:
    [snippet] = (one for one in ALL if one.version == version and one.page in pages and 'monitor(' in one.text)
    plugin(folder, '10-monitor', snippet, MONITOR[snippet.generation] + '\n')
    return PluginBench(folder)


@pytest.mark.parametrize('version', GENERATIONS)
def test_the_page_on_watchers(version: str, folder: Path, typed: Callable[[bytes], object]) -> None:
    """Lines are read from the standard input, until there is an empty one."""
    bench = monitoring(version, ('mq_iowatch',), folder)
    watched = len(bench.reactor._watched)
    for line, still in ((b'a line\r\n', 0), (b'another\r\n', 0), (b'\r\n', 1)):
        typed(line)
        bench.run(bench.quiet())
        assert len(bench.reactor._watched) == watched - still, line
    bench.close()
    assert LOG.lines == []


@pytest.mark.parametrize('version', GENERATIONS)
@pytest.mark.parametrize('stops', ['empty line', 'silence'])
def test_the_page_on_timers(version: str, stops: str, folder: Path, typed: Callable[[bytes], object]) -> None:
    """As above, and it gives up after five seconds without a line."""
    bench = monitoring(version, ('mq_timerstart', 'mq_starttimer'), folder)
    watched = len(bench.reactor._watched)
    for _ in range(3):
        bench.run(bench.quiet(4.5))
        typed(b'a line\r\n')
    bench.run(bench.quiet(4.5))
    assert len(bench.reactor._watched) == watched, 'each line has begun the five seconds anew'
    if stops == 'empty line':
        typed(b'\r\n')
        bench.run(bench.quiet())
    else:
        bench.run(bench.quiet(1))
    assert len(bench.reactor._watched) == watched - 1
    bench.close()
    assert LOG.lines == []
