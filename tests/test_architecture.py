"""Holds the shape of the code: doors, directions, purity, sizes. The tables below are the rules.

Each check takes a module's name and source and returns its findings as text; so each can be shown, on a few lines of
source, to be able to fail. Modules are named from the package down: `loop/reactor` is mqlite/loop/reactor.py.
"""

from __future__ import annotations

import ast
import fnmatch
import functools
import importlib.util
import sysconfig
from collections.abc import Iterable, Iterator
from typing import Callable

import pytest

from tests.support.process import ROOT

# Who may import a dangerous module (fnmatch patterns; `a.b` is the name b of a). Not listed, or (): nobody may.
DOORS = {
    'argparse':        ('cli',),
    'asyncio':         (),
    'ctypes':          ('plugin/*', 'dkim/libcrypto'),
    'multiprocessing': (),
    'selectors':       ('loop/*',),
    'signal':          ('loop/*',),
    'socket':          ('loop/*',),
    'sqlite3':         ('queues/sqlite', 'database/file'),
    'ssl':             ('loop/*',),
    'subprocess':      (),
    'threading':       ('loop/*',),
    'time.monotonic':  ('loop/*',),
    'time.sleep':      (),
}

# Folder, or module of the top → rank. Imports go down, or sideways between folders as long as that makes no circle.
RANKS = {
    '__init__': 0, 'errors': 0, 'der': 0, 'log': 0, 'settings': 0, 'settings_kinds': 0, 'settings_table': 0,
    'loop':     1, 'recorder': 1,
    'amqp':     2, 'dns': 2, 'smtp': 2, 'template': 2, 'message': 2, 'dkim': 2,
    'queues':   3, 'plugin': 3, 'auth': 3, 'database': 3,
    'host':     3, 'mail_log': 3,
    'receive':  4, 'refused': 4, 'delivery': 4, 'sink': 4, 'spool': 5,
    'parts':    5, 'queue_command': 5, 'local_command': 5, 'requeue': 5, 'operate_command': 5,
    'sending':  6, 'receiving': 6, 'control': 5, 'why_text': 0, 'why_command': 6,
    'supervisor': 5,
    'worker':   7, 'sendmail': 7,
    'worker_process': 8,
    'daemon':   9,
    'cli':      10,
    '__main__': 11,
}

# Pure: no await, no loop, no log, no clock. In the folders of protocols everything is, but for the drivers named, and
# for dns/hosts, which looks whether its files have changed.
PURE = ('der', 'loop/x509', 'amqp/*', 'dns/*', 'smtp/*', 'message/*', 'template/*', 'settings*', 'delivery/*',
        'auth/*', 'dkim/*', 'database/*', 'spool/message')
DRIVERS = ('delivery/aliases', 'delivery/attempt', 'delivery/carrier', 'delivery/controls', 'delivery/destinations',
           'delivery/engine',
           'delivery/protection', 'delivery/resolving', 'delivery/response_rules', 'delivery/schedule',
           'delivery/secured', 'delivery/signer',
           'amqp/client', 'dkim/crypto', 'dns/hosts', 'dns/resolver',
           'smtp/certificates', 'smtp/admission', 'smtp/server', 'smtp/client',
           'auth/desk', 'auth/local', 'auth/network', 'auth/open', 'auth/program',
           'database/file', 'database/live', 'database/locals', 'database/signing_keys',
           'database/overrides', 'database/open')
IMPURE = ('mqlite.loop', 'mqlite.log', 'time', 'os', 'random', 'secrets')

FILE_LINES = 450
FUNCTION_LINES = 45
SHORT_LINES = 30            # most functions are shorter than this: at least this share of them
SHORT_SHARE = 0.95

SOURCES = {path.relative_to(ROOT / 'mqlite').with_suffix('').as_posix(): path.read_text()
           for path in sorted((ROOT / 'mqlite').rglob('*.py'))}
OTHERS = {path.relative_to(ROOT).as_posix(): path.read_text()
          for path in (ROOT / 'build.py', *sorted((ROOT / 'tests').rglob('*.py')))}
Function = (ast.FunctionDef, ast.AsyncFunctionDef)


parse = functools.lru_cache(maxsize=None)(ast.parse)        # nobody changes what it gives


def matches(module: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(module, pattern) for pattern in patterns)


def imports(module: str, tree: ast.AST) -> Iterator[str]:
    """Every imported name, dotted and absolute; `from a import b` gives `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{module}:{node.lineno}: relative import; spell it mqlite.…'
            yield node.module or ''
            yield from (f'{node.module}.{alias.name}' for alias in node.names)


def used_names(module: str, tree: ast.AST) -> set[str]:
    """Imports, and attributes of modules as they are spelled: `time.monotonic`."""
    spelled = {f'{node.value.id}.{node.attr}' for node in ast.walk(tree)
               if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)}
    return spelled | set(imports(module, tree))


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + '.')


class WithoutTypeOnly(ast.NodeTransformer):
    """Drops `if TYPE_CHECKING:`, which never runs: what it imports makes no circle between modules."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if ast.unparse(node.test) == 'TYPE_CHECKING' else node


def own_imports(module: str, tree: ast.AST, known: Iterable[str]) -> set[str]:
    """The modules of mqlite that this one imports, by our names; a package counts as its `__init__`."""
    files = {'mqlite.' + name.replace('/', '.'): name for name in known}
    files.update({'mqlite.' + name[:-9].replace('/', '.'): name for name in known if name.endswith('/__init__')})
    return {files[name] for name in imports(module, tree) if name in files} - {module}


def door_findings(module: str, source: str) -> list[str]:
    used = used_names(module, parse(source))
    return [f'{module} uses {door}: only {allowed or "nobody"} may' for door, allowed in DOORS.items()
            if any(is_within(name, door) for name in used) and not matches(module, allowed)]


def is_standard(top: str) -> bool:
    """Whether Python itself brings the module, going by where it would be imported from."""
    spec = importlib.util.find_spec(top)
    origin = (spec.origin or '') if spec else ''
    own = origin.startswith(sysconfig.get_path('stdlib')) and 'site-packages' not in origin
    return own or origin in ('built-in', 'frozen')


def foreign_findings(module: str, source: str) -> list[str]:
    tops = {name.split('.')[0] for name in imports(module, parse(source))} - {'mqlite'}
    return [f'{module} imports {top}, which is not in the standard library' for top in tops if not is_standard(top)]


def purity_findings(module: str, source: str) -> list[str]:
    if not matches(module, PURE) or matches(module, DRIVERS):
        return []
    tree = parse(source)
    waits = [f'{module}:{node.lineno} awaits; it is to be pure' for node in ast.walk(tree)
             if isinstance(node, (ast.AsyncFunctionDef, ast.Await))]
    return waits + [f'{module} imports {name}; it is to be pure' for name in imports(module, tree)
                    if any(is_within(name, impure) for impure in IMPURE)]


def length_findings(name: str, source: str) -> list[str]:
    lines = source.count('\n')
    return [f'{name} has {lines} lines, at most {FILE_LINES}'] if lines > FILE_LINES else []


def shape_findings(module: str, source: str) -> list[str]:
    """Docstring, length of the file and of each function, imports inside functions."""
    tree = parse(source)
    findings = ([] if ast.get_docstring(tree) else [f'{module} has no docstring']) + length_findings(module, source)
    for name, length, function in functions(tree):
        if length > FUNCTION_LINES:
            findings.append(f'{module}: {name} has {length} lines, at most {FUNCTION_LINES}')
        if any(isinstance(node, (ast.Import, ast.ImportFrom)) for node in ast.walk(function)):
            findings.append(f'{module}: {name} imports inside the function')
    return findings


def functions(tree: ast.AST) -> Iterator[tuple[str, int, ast.AST]]:
    """Name, lines without the docstring, node. The docstring does not count: it is to be as long as it must."""
    for node in ast.walk(tree):
        if isinstance(node, Function) and node.end_lineno:
            words = node.body[0] if ast.get_docstring(node) else None
            spent = (words.end_lineno or 0) - words.lineno + 1 if words else 0
            yield node.name, node.end_lineno - node.lineno + 1 - spent, node


def part(module: str) -> str:
    """The row of RANKS that a module belongs to."""
    return module.split('/')[0]


def direction_findings(sources: dict[str, str]) -> list[str]:
    findings = [f'{module} has no rank; give {part(module)} a row in RANKS'
                for module in sources if part(module) not in RANKS]
    graph = {module: own_imports(module, parse(source), sources) for module, source in sources.items()}
    findings += [f'{module} imports {target}, which is above it' for module, targets in graph.items()
                 for target in targets if RANKS.get(part(target), 0) > RANKS.get(part(module), 99)]
    parts: dict[str, set[str]] = {}
    for module, targets in graph.items():
        parts.setdefault(part(module), set()).update(part(target) for target in targets if part(target) != part(module))
    running = {module: own_imports(module, WithoutTypeOnly().visit(ast.parse(source)), sources)
               for module, source in sources.items()}
    return findings + [f'import circle: {" → ".join(circle)}' for circle in (*circles(running), *circles(parts))]


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The shortest way round from each node that can be reached from itself."""
    found = []
    for start in sorted(graph):
        ways = [[start]]
        for way in ways:            # grows as it is walked; the last of a way is never the last of another
            ends = {step[-1] for step in ways[1:]}
            ways += [[*way, target] for target in sorted(graph.get(way[-1], set()) - ends)]
        found += [way for way in ways[1:] if way[-1] == start]
    return found


Check = Callable[[str, str], list[str]]
CHECKS: tuple[Check, ...] = (door_findings, foreign_findings, purity_findings, shape_findings)


@pytest.mark.parametrize('check', CHECKS)
def test_every_module(check: Check) -> None:
    assert [finding for module, source in SOURCES.items() for finding in check(module, source)] == []


def test_tests_and_the_build_keep_to_the_length_of_a_file_too() -> None:
    assert [finding for name, source in OTHERS.items() for finding in length_findings(name, source)] == []


def test_imports_go_down_and_never_round() -> None:
    assert direction_findings(SOURCES) == []


def test_most_functions_are_short() -> None:
    lengths = [length for source in SOURCES.values() for _, length, _ in functions(parse(source))]
    assert sum(length < SHORT_LINES for length in lengths) >= SHORT_SHARE * len(lengths)


DOC = '"""Doc."""\n'


@pytest.mark.parametrize(('check', 'module', 'source', 'finding'), [
    (door_findings,    'smtp/client', 'import socket',                         'smtp/client uses socket'),
    (door_findings,    'queues/rabbit', 'from sqlite3 import connect',         'queues/rabbit uses sqlite3'),
    (door_findings,    'cli',         'import time\ntime.monotonic()',         'cli uses time.monotonic'),
    (door_findings,    'cli',         'from time import monotonic',            'cli uses time.monotonic'),
    (door_findings,    'message/dkim', 'import ctypes.util',                   'message/dkim uses ctypes'),
    (foreign_findings, 'cli',         'import json, pytest.x',                 'cli imports pytest,'),
    (foreign_findings, 'cli',         'from no_such import x',                 'cli imports no_such,'),
    (purity_findings,  'smtp/reply',  'async def f(): pass',                   'smtp/reply:1 awaits'),
    (purity_findings,  'dns/cache',   'from mqlite.loop.task import sleep',    'imports mqlite.loop.task;'),
    (purity_findings,  'dns/cache',   'from mqlite import log',                'imports mqlite.log;'),
    (purity_findings,  'message/mime', 'import time',                          'imports time;'),
    (shape_findings,   'log',         'import re',                             'log has no docstring'),
    (shape_findings,   'log',         DOC + 'def f():\n    import re',         'f imports inside the function'),
    (shape_findings,   'log',         DOC + 'def f():\n' + ' 1\n' * 45,        'f has 46 lines'),
    (shape_findings,   'log',         DOC + 'a\n' * 450,                       'log has 451 lines'),
])
def test_a_check_can_fail(check: Check, module: str, source: str, finding: str) -> None:
    assert any(finding in text for text in check(module, source))


@pytest.mark.parametrize(('sources', 'finding'), [
    ({'smtp/reply': 'import mqlite.delivery.verdict', 'delivery/verdict': ''}, 'which is above it'),
    ({'loop/task': 'from mqlite.smtp import reply', 'smtp/reply': ''},        'which is above it'),
    ({'nowhere': ''},                                                         'nowhere has no rank'),
    ({'loop/a': 'import mqlite.loop.b', 'loop/b': 'import mqlite.loop.a'},    'circle: loop/a → loop/b → loop/a'),
    ({'smtp/a': 'import mqlite.dns.a', 'dns/a': '', 'dns/b': 'import mqlite.smtp.a'}, 'circle: dns → smtp → dns'),
])
def test_a_wrong_direction_is_found(sources: dict[str, str], finding: str) -> None:
    assert any(finding in text for text in direction_findings(sources))
