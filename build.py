#!/usr/bin/env python3
"""Build, try, test: `python3 build.py [command]`; without a command it makes mqlite.pyz.

Needs Python 3.9 and nothing else. What a command needs is fetched by the command: Python packages at the exact
versions of PINS into a private virtual environment (`.venv`), Debian packages from PROGRAMS when it may install
them (root, apt-get). Where it may not, it names what is missing and stops.

The archive is a pure function of the sources. Entries are sorted, stored (not deflated: zlib's output differs
between zlib versions), dated 1980-01-01, mode 0644, and carry no byte code, which would belong to one Python version
(compiling 9,000 lines at each start costs 0.12 s): the bytes are the same on every machine, under every Python
from 3.9, in a clone or an unpacked tarball. Of shiv we use the archive writer; its bootstrap, which unpacks into the
home directory before the first import, stays out: `__main__.py` of the archive is `mqlite/__main__.py`, and Python
imports from the file itself (zipimport).

Must not know: anything of mail beyond the example that `run` starts.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Callable

ROOT = Path(__file__).resolve().parent
ARCHIVE = ROOT / 'mqlite.pyz'
VENV = ROOT / '.venv'
RUN = ROOT / '.run'
BENCH = ROOT / 'tests' / 'bench'

# Exact versions, the newest that run under, and check for, every Python that mqlite supports: pytest 9, mypy 1.20,
# amqp 5.4 and aio-pika 9.6 no longer know 3.9.
PINS = (
    # package    version   group
    ('shiv',     '1.0.8',  'build'),
    ('pytest',   '8.4.2',  'test'),
    ('mypy',     '1.19.1', 'test'),
    ('ruff',     '0.17.5', 'test'),
    ('pika',     '1.4.4',  'test'),     # these three: programs that publish to a broker and read from it
    ('amqp',     '5.3.1',  'test'),
    ('aio-pika', '9.5.6',  'test'),
    ('flufl.bounce', '4.0', 'test'),    # a reader of bounces, GNU Mailman's
    ('dkimpy',   '1.1.8',  'test'),     # verifies what we sign, and PyNaCl is what it verifies Ed25519 with
    ('pynacl',   '1.6.2',  'test'),
    ('aiosmtpd', '1.4.6',  'peers'),    # a server to deliver to
)

# What a command wants of the machine. Probe: a command, `module:NAME` of this Python, or the path of a file.
PROGRAMS = (
    # probe                     Debian package     group    what for
    ('module:ensurepip',        'python3-venv',    'build', 'the private virtual environment'),
    ('curl',                    'curl',            'test',  'an SMTP client'),
    ('dnsmasq',                 'dnsmasq-base',    'test',  'a name server'),
    ('g++',                     'g++',             'test',  'the header of the C plugins, in C++'),
    ('gcc',                     'gcc',             'plugins', 'the C plugins'),
    ('/usr/include/stdio.h',    'libc6-dev',       'plugins', 'the C plugins'),
    ('/usr/include/ev.h',       'libev-dev',       'test',  'C plugins with the event loop of the host'),
    ('/usr/include/json-c',     'libjson-c-dev',   'test',  'C plugins with json-c'),
    ('/usr/include/libfastjson', 'libfastjson-dev', 'plugins', 'C plugins with libfastjson'),
    ('haproxy',                 'haproxy',         'test',  'a load balancer that speaks PROXY'),
    ('openssl',                 'openssl',         'test',  'an SMTP client over TLS, certificates'),
    ('readelf',                 'binutils',        'test',  'a second opinion on the shim of the C plugins'),
    ('rabbitmq-server',         'rabbitmq-server', 'test',  'a broker'),
    ('/usr/share/doc/libnet-ssleay-perl', 'libnet-ssleay-perl', 'test', 'swaks over TLS'),
    ('smtp-sink',               'postfix',         'test',  'SMTP under load: smtp-source, smtp-sink'),
    ('swaks',                   'swaks',           'test',  'an SMTP client'),
    ('freeradius',              'freeradius',      'peers', 'logins by RADIUS'),
    ('/usr/share/doc/libnss-wrapper', 'libnss-wrapper', 'peers', 'Exim without its Debian package: its user'),
    ('/usr/share/doc/libsasl2-modules', 'libsasl2-modules', 'peers', 'Postfix that logs in'),
    ('/usr/share/doc/libevent-2.1-7', 'libevent-2.1-7', 'peers', 'OpenSMTPD without its Debian package: a library'),
    ('mkpasswd',                'whois',           'peers', 'hashes of passwords'),
    ('msmtp',                   'msmtp',           'peers', 'an SMTP client'),
    ('named',                   'bind9',           'peers', 'a name server'),
    ('nginx',                   'nginx-light',     'peers', 'logins by HTTP'),
    ('npm',                     'npm',             'peers', 'nodemailer, an SMTP client, and Haraka, a server'),
    ('opendkim',                'opendkim',        'peers', 'a second opinion on our signatures'),
    ('redis-server',            'redis-server',    'peers', 'what a C plugin asks'),
    ('slapd',                   'slapd',           'peers', 'logins by LDAP'),
    ('/usr/include/mariadb',    'libmariadb-dev',  'peers', 'the pages on C plugins that open a database'),
    ('valgrind',                'valgrind',        'peers', 'the memory of C plugins'),
    ('unbound',                 'unbound',         'peers', 'a name server'),
)

# Run in this order before pytest, whose closing line is to be the last one printed.
CHECKS = (('ruff', 'check', '.'), ('mypy',))

HOST = '127.0.0.1'
SMTP_PORT = 2525
SINK_PORT = 2526
START_SECONDS = 15      # an unloaded machine needs well under one

EXAMPLE_CONFIG = """\
# Written by `build.py run`, afresh at every start.
hostname: localhost
smtp-ip: {host}
smtp-port: {smtp_port}
queue-address: sqlite://{run}/queue.db
smtp-sink-address: {host}
smtp-sink-port: {sink_port}
application-log: stdout
"""

# What `run` prints; each line works verbatim in a shell.
EXAMPLE_LINES = """\

mqlite listens on {host}:{smtp_port} and delivers all mail to the sink on {host}:{sink_port}. Ctrl-C ends both.
In another terminal:

cd {root}

# send a mail with curl, or with Python
printf 'Subject: hello\\r\\n\\r\\nSent with curl.\\r\\n' | curl smtp://{host}:{smtp_port} \
--mail-from sender@example.org --mail-rcpt recipient@example.com -T -
python3 -c "import smtplib; s = smtplib.SMTP('{host}', {smtp_port}); \
s.sendmail('sender@example.org', 'recipient@example.com', 'Subject: hello\\n\\nSent with Python.\\n'); s.quit()"

# look at the queue, read the result
python3 mqlite.pyz queue list --config .run/mqlite.conf
python3 mqlite.pyz queue get results --config .run/mqlite.conf

"""


class Failure(Exception):
    """What stops a command: one line that says what is missing or in the way, and what to do."""


def say(text: str) -> None:
    print('build.py: ' + text, file=sys.stderr, flush=True)


# Debian packages

def is_present(probe: str) -> bool:
    """Whether the command, `module:NAME` or absolute path is there; commands are looked for in sbin as well."""
    if probe.startswith('module:'):
        return importlib.util.find_spec(probe[len('module:'):]) is not None
    if probe.startswith('/'):
        return Path(probe).exists()
    path = os.environ.get('PATH', os.defpath) + ':/usr/local/sbin:/usr/sbin:/sbin'
    return shutil.which(probe, path=path) is not None


def missing_programs(groups: Sequence[str]) -> list[tuple[str, str, str]]:
    """Probe, package and what for."""
    importlib.invalidate_caches()
    return [(probe, package, purpose) for probe, package, group, purpose in PROGRAMS
            if group in groups and not is_present(probe)]


def require_programs(groups: Sequence[str]) -> None:
    """See to it that every program of the groups is there; Failure names those that are not."""
    missing = missing_programs(groups)
    if missing and os.geteuid() == 0 and shutil.which('apt-get'):
        apt_install([package for _, package, _ in missing])
        missing = missing_programs(groups)
    if missing:
        names = ', '.join(f'{probe} ({purpose})' for probe, _, purpose in missing)
        packages = ' '.join(sorted({package for _, package, _ in missing}))
        raise Failure(f'missing: {names}. On Debian, as root: apt-get install --no-install-recommends {packages}')


def apt_install(packages: Sequence[str]) -> None:
    """Install quietly; package lists are fetched only when those at hand do not do. The caller probes the outcome."""
    say('installing Debian packages: ' + ' '.join(packages))
    environment = dict(os.environ, DEBIAN_FRONTEND='noninteractive')
    install = ['apt-get', 'install', '-qq', '-y', '--no-install-recommends', '-o', 'Dpkg::Use-Pty=0', *packages]
    with services_kept_down(packages):
        first = subprocess.run(install, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if first.returncode:
            subprocess.run(['apt-get', 'update', '-qq'], env=environment, stdout=subprocess.DEVNULL)
            subprocess.run(install, env=environment, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def services_kept_down(packages: Sequence[str]) -> Iterator[None]:
    """Debian starts what it installs, and again at boot. Tests start their own peers: neither is wanted here."""
    policy = Path('/usr/sbin/policy-rc.d')
    ours = not policy.exists()
    if ours:
        policy.write_text('#!/bin/sh\nexit 101\n')      # 101: action forbidden by policy, invoke-rc.d(8)
        policy.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            policy.unlink()
    if Path('/run/systemd/system').exists():
        for package in packages:                        # most have no unit of their name: that is no error here
            subprocess.run(['systemctl', 'disable', package], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


# Python packages

def interpreter() -> str:
    """Names the Python below any virtual environment: another one needs another `.venv`."""
    return f'# {sys.base_prefix} {sys.version}'.replace('\n', ' ')


def base_python() -> str:
    """The Python below any virtual environment: never the one that is about to be wiped."""
    named = Path(sys.base_prefix) / 'bin' / f'python{sys.version_info[0]}.{sys.version_info[1]}'
    return str(named) if named.exists() else sys.executable


def python() -> str:
    return str(VENV / 'bin' / 'python')


def plan_packages(stamp: Sequence[str], groups: Sequence[str]) -> tuple[bool, list[str]]:
    """From the lines of the stamp: (make `.venv` afresh?, requirements that are still to be installed)."""
    pins = {f'{package}=={version}': group for package, version, group in PINS}
    fresh = list(stamp[:1]) != [interpreter()] or not set(stamp[1:]).issubset(pins)
    installed = [] if fresh else stamp[1:]
    return fresh, [pin for pin, group in pins.items() if group in groups and pin not in installed]


def require_packages(groups: Sequence[str]) -> None:
    """See to it that `.venv` belongs to this Python and holds the pinned packages of the groups."""
    stamp_file = VENV / 'installed-pins'
    stamp = stamp_file.read_text().splitlines() if stamp_file.exists() and Path(python()).exists() else []
    fresh, wanted = plan_packages(stamp, groups)
    if not wanted:
        return
    if fresh:
        say(f'making {VENV}')
        base = base_python()
        if subprocess.run([base, '-m', 'venv', '--clear', str(VENV)]).returncode:
            raise Failure(f'{base} -m venv did not work, see above; on Debian it needs the package python3-venv')
        stamp = [interpreter()]
    pip_install(python(), wanted)
    stamp_file.write_text('\n'.join([*stamp, *wanted]) + '\n')


def pip_install(executable: str, requirements: Sequence[str]) -> None:
    names = ' '.join(requirements)
    say('installing Python packages: ' + names)
    pip = [executable, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', *requirements]
    done = subprocess.run(pip, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if line.startswith('ERROR')] or ['no reason given']
        raise Failure(f'could not install {names}: a Python package index must be reachable the first time '
                      f'(PIP_INDEX_URL names another). pip: {errors[-1]}')


def prepare(*groups: str) -> None:
    require_programs(groups)
    require_packages(groups)


# The archive

def archive_entries(root: Path) -> dict[str, bytes]:
    """Name in the archive → contents. LICENSE goes along: the archive travels alone."""
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in (root / 'mqlite').rglob('*.py')}
    files['LICENSE'] = (root / 'LICENSE').read_bytes()
    files['__main__.py'] = files['mqlite/__main__.py']
    return files


def pack(root: Path, target: Path) -> None:
    """Write the archive in one step, so that whoever starts it meets the old one or the new one. Runs in `.venv`."""
    from shiv import builder  # here, not above: the rest of this file runs before shiv is installed

    plain_file = os.stat_result([0o100644, *[0] * 9])
    draft = target.with_name('.' + target.name)
    with draft.open('wb') as stream:
        builder.write_file_prefix(stream, '/usr/bin/env python3')
        with zipfile.ZipFile(stream, 'w') as archive:
            for name, contents in sorted(archive_entries(root).items()):
                builder.write_to_zipapp(archive, name, contents, (1980, 1, 1, 0, 0, 0), zipfile.ZIP_STORED, plain_file)
    draft.chmod(0o755)
    draft.replace(target)


def command_build(_arguments: Sequence[str]) -> int:
    prepare('build')
    program = 'import build; build.pack(build.ROOT, build.ARCHIVE)'
    if subprocess.run([python(), '-B', '-c', program], cwd=ROOT).returncode:
        raise Failure(f'{ARCHIVE.name} was not made, see above')
    say(f'made {ARCHIVE.name}, {ARCHIVE.stat().st_size // 1024} KB')
    return 0


def build_plugins(folder: Path) -> None:
    """The C examples as shared objects, each made as its opening comment says; Failure shows what the compiler says."""
    for source in sorted((ROOT / 'plugins').glob('*.c')):
        words = next(line.split()[2:] for line in source.read_text().splitlines() if line.startswith(' *      cc '))
        words[words.index('-o') + 1] = str(folder / words[words.index('-o') + 1])
        done = subprocess.run(['gcc', '-O2', '-Wall', '-Wextra', '-Wpedantic', *words], cwd=ROOT, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode or done.stdout:
            raise Failure(f'gcc {shlex.join(words)}: {done.stdout}')


def command_plugins(arguments: Sequence[str]) -> int:
    require_programs(['plugins'])
    folder = Path(arguments[0] if arguments else ROOT / 'plugins').resolve()
    folder.mkdir(parents=True, exist_ok=True)
    build_plugins(folder)
    return 0


# The example

def refuse_used_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise Failure(f'{HOST}:{port} cannot be used ({error.strerror}): `ss -ltnp sport = :{port}` names what '
                          f'listens there; end it, then run this again') from None


def wait_listening(port: int, processes: Sequence[subprocess.Popen[bytes]], asked: Sequence[int]) -> bool:
    """True once the port greets, by when its process has logged its start; False when a process has ended, or an end
    was asked for, before that."""
    give_up = time.monotonic() + START_SECONDS
    while all(process.poll() is None for process in processes) and not asked:
        with contextlib.suppress(OSError):
            with socket.create_connection((HOST, port), timeout=1) as probe:
                if probe.recv(3) == b'220':
                    return True
        if time.monotonic() > give_up:
            raise Failure(f'nothing listens on {HOST}:{port} after {START_SECONDS} seconds; the log above says why')
        time.sleep(0.05)
    return False


def start_archive(*arguments: str) -> subprocess.Popen[bytes]:
    """In a session of its own: Ctrl-C then reaches build.py alone, which passes it on once."""
    return subprocess.Popen([sys.executable, str(ARCHIVE), *arguments], cwd=ROOT, start_new_session=True)


def end(process: subprocess.Popen[bytes], asked: Sequence[int]) -> int:
    """SIGTERM, and again for every further signal that we get meanwhile; the exit status, as a shell counts it."""
    passed_on = -1
    while process.poll() is None:
        if passed_on != len(asked):
            passed_on = len(asked)
            process.terminate()
        time.sleep(0.05)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def command_run(_arguments: Sequence[str]) -> int:
    """Sink and daemon in the foreground. Status: that of the daemon, or of the sink when the daemon's is 0."""
    command_build([])
    for port in (SMTP_PORT, SINK_PORT):
        refuse_used_port(port)
    values = dict(host=HOST, smtp_port=SMTP_PORT, sink_port=SINK_PORT, run=RUN, root=shlex.quote(str(ROOT)))
    shutil.rmtree(RUN, ignore_errors=True)
    RUN.mkdir(mode=0o700)
    (RUN / 'mqlite.conf').write_text(EXAMPLE_CONFIG.format(**values))

    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: asked.append(number))
    sink = start_archive('sink', '--port', str(SINK_PORT))
    daemon = start_archive('--config', '.run/mqlite.conf')
    try:
        both = (sink, daemon)
        if wait_listening(SINK_PORT, both, asked) and wait_listening(SMTP_PORT, both, asked):
            print(EXAMPLE_LINES.format(**values), flush=True)
        while all(process.poll() is None for process in both) and not asked:
            time.sleep(0.1)
    finally:
        statuses = (end(daemon, asked), end(sink, asked))       # the daemon first: what is in flight still has its sink
    return statuses[0] or statuses[1]


# Tests

def in_venv(*arguments: str) -> int:
    """`python -m …` in `.venv`, from the top of the checkout; the exit status."""
    sys.stdout.flush()
    return subprocess.run([python(), '-m', *arguments], cwd=ROOT).returncode


def command_test(arguments: Sequence[str]) -> int:
    """All three always run. A failed check is named before pytest, which has the last word on the screen."""
    prepare('build', 'plugins', 'test')
    failed = [check[0] for check in CHECKS if in_venv(*check)]
    if failed:
        say(' and '.join(failed) + ' failed, see above; the exit status will say so, whatever pytest finds')
    return in_venv('pytest', *arguments) or int(bool(failed))


def command_peers(arguments: Sequence[str]) -> int:
    prepare('build', 'plugins', 'test', 'peers')
    return in_venv('pytest', 'tests/peers', *arguments)


def command_bench(arguments: Sequence[str]) -> int:
    names = sorted(path.stem for path in BENCH.glob('[!_]*.py'))
    if not arguments or arguments[0] not in names:
        raise Failure('bench NAME [arguments], where NAME is one of: ' + ', '.join(names))
    command_build([])
    prepare('build', 'plugins', 'test')
    return subprocess.run([python(), str(BENCH / arguments[0]) + '.py', *arguments[1:]], cwd=ROOT).returncode


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str, str]] = {
    # name     function         takes          help
    'build':   (command_build,   '',            'make mqlite.pyz; what happens without a command'),
    'run':     (command_run,     '',            'build, then daemon and sink on loopback, with lines to try'),
    'plugins': (command_plugins, '[FOLDER]',    'compile the examples of plugins/, there or in another folder'),
    'test':    (command_test,    '[pytest …]',  'ruff, mypy and the test suite'),
    'peers':   (command_peers,   '[pytest …]',  'the heavy tests, against other mail servers and brokers'),
    'bench':   (command_bench,   'NAME …',      'a measurement of tests/bench'),
}


def usage() -> str:
    rows = [f'  {name + " " + takes:18}{text}' for name, (_, takes, text) in COMMANDS.items()]
    return '\n'.join(['usage: python3 build.py [command]', *rows])


def main(argv: Sequence[str]) -> int:
    name, arguments = (argv[0], argv[1:]) if argv else ('build', [])
    if name in ('help', '-h', '--help'):
        print(usage())
        return 0
    if name not in COMMANDS:
        print(usage(), file=sys.stderr)
        return 2
    try:
        return COMMANDS[name][0](arguments)
    except Failure as failure:
        say(str(failure))
        return 1


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
