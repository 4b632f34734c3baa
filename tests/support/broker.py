"""A private RabbitMQ node: own folder, own ports, own port mapper; nothing of it is left when it is closed.

Debian's command on PATH insists on fixed folders and another user; the script behind it takes all from the environment.
Operations that AMQP has no methods for (alarms, policies, users, clusters) are Erlang expressions, sent to the node's
distribution port by `erl_call`, which takes a hundredth of the time that rabbitmqctl does.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Callable

from mqlite.loop.clock import Ready, VirtualClock
from tests.support.process import HOST, Process, find_program, free_port, wait_until

COOKIE = 'mqlite-tests'
START_SECONDS = 90.0        # four to six alone on two cores; a cluster shares them with two other nodes
MAX_MESSAGE_SIZE = 16 << 20  # what RabbitMQ 4 has by default
LIBRARY = Path('/usr/lib/rabbitmq/bin')

CONFIG = """\
listeners.tcp.1 = {host}:{port}
log.console = false
log.file.level = warning
disk_free_limit.absolute = 100MB
vm_memory_high_watermark.absolute = 1GB
max_message_size = {max_message_size}
collect_statistics_interval = 60000
"""
TLS_CONFIG = """\
listeners.ssl.1 = {host}:{tls_port}
ssl_options.cacertfile = {folder}/ca.crt
ssl_options.certfile = {folder}/server.crt
ssl_options.keyfile = {folder}/server.key
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = false
ssl_cert_login_from = common_name
auth_mechanisms.1 = PLAIN
auth_mechanisms.2 = AMQPLAIN
auth_mechanisms.3 = EXTERNAL
"""


class Broker:
    """One node. `start` returns at once; whoever needs it calls `wait_ready`."""

    def __init__(self, tls: bool = False, epmd_port: int = 0) -> None:
        """`tls`: also listen for TLS, with a certificate of the folder's ca.crt; client.crt there logs in as guest."""
        self.folder = Path(tempfile.mkdtemp(prefix='mqlite-broker-'))
        self.port, self.tls_port, self.dist_port = free_port(), free_port(), free_port()
        self.epmd_port = epmd_port or free_port()
        self.name = f'mqlite{self.port}@localhost'
        self.process: Process | None = None
        self._tls = tls
        self._write_files()
        self._epmd: Process | None = None
        if not epmd_port:           # in the foreground: the node would start one that outlives everything
            self._epmd = Process([find_program('epmd'), '-port', str(self.epmd_port), '-address', HOST], self.folder)
            self._epmd.wait_listening(self.epmd_port)

    @property
    def url(self) -> str:
        return f'amqp://guest:guest@{HOST}:{self.port}/'

    def start(self) -> Broker:
        """Also after `kill` and `stop`: on the same queues."""
        if self.process:
            self.process.close()
        server = LIBRARY / 'rabbitmq-server'
        command = str(server) if server.exists() else find_program('rabbitmq-server')
        self.process = Process([command], self.folder, self._environment())
        return self

    def wait_ready(self) -> Broker:
        assert self.process
        self.process.wait_for(self._greets, f'RabbitMQ on port {self.port}', START_SECONDS)
        return self

    def _greets(self) -> bool:
        """It answers the protocol header with connection.start, a method frame."""
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), timeout=5) as connection:
            connection.sendall(b'AMQP\0\0\x09\x01')
            return connection.recv(1) == b'\x01'
        return False

    def evaluate(self, expressions: str) -> str:
        """What Erlang expressions give on the node. AssertionError when they fail."""
        command = [find_erl_call(), '-address', f'{HOST}:{self.dist_port}', '-c', COOKIE, '-e']
        done = subprocess.run(command, input=expressions.encode() + b'\n', capture_output=True, timeout=60,
                              env=self._environment())
        output = done.stdout.decode()
        assert done.returncode == 0 and output.startswith('{ok, '), (expressions, output, done.stderr.decode())
        return output[5:-1]

    # the node's life

    @property
    def pids(self) -> list[int]:
        """Its processes: the script and the virtual machine."""
        assert self.process
        done = subprocess.run(['pgrep', '-f', f'{self.folder}/home'], capture_output=True)
        return [self.process.pid, *(int(word) for word in done.stdout.split())]

    def signal(self, number: int) -> None:
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """`kill -9`, and reap."""
        assert self.process
        self.signal(signal.SIGKILL)
        self.process.kill()

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def restart(self) -> None:
        """In order, as an operator does it."""
        assert self.process
        self.evaluate('rabbit:stop().')
        self.evaluate('rabbit:start().')
        self.wait_ready()

    def close(self) -> None:
        if self.process is not None:
            self.kill()
            self.process.close()
        if self._epmd is not None:
            self._epmd.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # what an operator does

    def set_memory_alarm(self, on: bool) -> None:
        self.evaluate(f'vm_memory_monitor:set_vm_memory_high_watermark({"1.0e-6" if on else "0.9"}).')
        wait_until(lambda: bool(self.evaluate('rabbit_alarm:get_alarms().').strip('[]')) == on, 'the alarm')

    def add_user(self, name: str, configure: str = '.*', write: str = '.*', read: str = '.*') -> None:
        """With the name as password, and these permissions in the virtual host /."""
        self.evaluate(f'rabbit_auth_backend_internal:add_user(<<"{name}">>, <<"{name}">>, <<"tests">>), '
                      f'rabbit_auth_backend_internal:set_permissions(<<"{name}">>, <<"/">>, <<"{configure}">>, '
                      f'<<"{write}">>, <<"{read}">>, <<"tests">>).')

    def set_policy(self, name: str, pattern: str, definition: str) -> None:
        text = definition.replace('"', '\\"')
        answer = self.evaluate(f'rabbit_policy:parse_set(<<"/">>, <<"{name}">>, <<"{pattern}">>, <<"{text}">>, "0", '
                               f'<<"all">>, <<"tests">>).')
        assert answer == 'ok', answer

    def clear_policy(self, name: str) -> None:
        self.evaluate(f'rabbit_policy:delete(<<"/">>, <<"{name}">>, <<"tests">>).')

    def depth(self, queue: str) -> int:
        """Messages on it, in somebody's hands or not."""
        return int(self.evaluate(f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)), '
                                 f'[{{messages, N}}] = rabbit_amqqueue:info(Q, [messages]), N.'))

    def depth_but(self, queue: str) -> int:
        """Messages on all other queues together."""
        return int(self.evaluate(f'lists:sum([N || Q <- rabbit_amqqueue:list(), amqqueue:get_name(Q) =/= '
                                 f'rabbit_misc:r(<<"/">>, queue, <<"{queue}">>), '
                                 f'{{messages, N}} <- rabbit_amqqueue:info(Q, [messages])]).'))

    def delete_queue(self, queue: str) -> None:
        self.evaluate(f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)), '
                      f'rabbit_amqqueue:delete(Q, false, false, <<"tests">>).')

    def delete_queues(self) -> None:
        self.evaluate('[rabbit_amqqueue:delete(Q, false, false, <<"tests">>) || Q <- rabbit_amqqueue:list()].')
        wait_until(lambda: self.evaluate('length(rabbit_amqqueue:list()).') == '0', 'the queues to be gone')

    def connections(self) -> int:
        return int(self.evaluate('length(rabbit_networking:connections()).'))

    def channels(self) -> int:
        return int(self.evaluate('length(rabbit_channel:list()).'))

    def close_connections(self) -> None:
        self.evaluate('[rabbit_networking:close_connection(P, "test") || P <- rabbit_networking:connections()].')

    def join(self, other: Broker) -> None:
        """Become a member of the other one's cluster. What is here is lost."""
        self.evaluate('rabbit:stop().')
        self.evaluate(f"rabbit_mnesia:join_cluster('{other.name}', disc).")
        self.evaluate('rabbit:start().')
        self.wait_ready()

    # files and environment

    def _write_files(self) -> None:
        home = self.folder / 'home'
        home.mkdir()
        cookie = home / '.erlang.cookie'
        cookie.write_text(COOKIE)
        cookie.chmod(0o400)
        text = CONFIG.format(host=HOST, port=self.port, max_message_size=MAX_MESSAGE_SIZE)
        if self._tls:
            make_authority(self.folder, {'server': HOST, 'client': 'guest'})
            text += TLS_CONFIG.format(host=HOST, tls_port=self.tls_port, folder=self.folder)
        (self.folder / 'rabbitmq.conf').write_text(text)
        (self.folder / 'plugins').write_text('[rabbitmq_auth_mechanism_ssl].\n' if self._tls else '[].\n')

    def _environment(self) -> dict[str, str]:
        folder = self.folder
        return {'HOME': str(folder / 'home'), 'RABBITMQ_NODENAME': self.name,
                'RABBITMQ_MNESIA_BASE': str(folder / 'mnesia'), 'RABBITMQ_LOG_BASE': str(folder / 'log'),
                'RABBITMQ_CONFIG_FILE': str(folder / 'rabbitmq.conf'), 'RABBITMQ_PID_FILE': str(folder / 'pid'),
                'RABBITMQ_ENABLED_PLUGINS_FILE': str(folder / 'plugins'), 'RABBITMQ_DIST_PORT': str(self.dist_port),
                'RABBITMQ_CONF_ENV_FILE': str(folder / 'none'), 'ERL_EPMD_PORT': str(self.epmd_port),
                'ERL_EPMD_ADDRESS': HOST, 'PATH': os.environ.get('PATH', os.defpath)}


class BrokerClock(VirtualClock):
    """Jumps to the next timer only when nothing is expected from the broker: `expects` says whether something is."""

    GRACE = 0.04        # what nobody asked for may still be on its way: a delivery

    def __init__(self) -> None:
        super().__init__()
        self.expects: Callable[[], bool] = lambda: False

    def wait(self, selector: selectors.BaseSelector, seconds: float | None, busy: bool) -> Ready:
        return super().wait(selector, seconds, busy or self.expects())


def find_erl_call() -> str:
    return shutil.which('erl_call') or str(next(Path('/usr/lib/erlang').glob('erts-*/bin/erl_call')))


def make_authority(folder: Path, names: dict[str, str]) -> None:
    """ca.crt, and for each name of a file a certificate for a common name, signed by it."""
    key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2']

    def openssl(*words: object) -> None:
        subprocess.run([find_program('openssl'), *map(str, words)], check=True, capture_output=True)

    openssl('req', '-x509', *key, '-subj', '/CN=test CA', '-addext', 'keyUsage=critical,keyCertSign,cRLSign',
            '-keyout', folder / 'ca.key', '-out', folder / 'ca.crt')
    for name, common_name in names.items():
        extensions = folder / f'{name}.ext'
        extensions.write_text(f'subjectAltName=IP:{HOST},DNS:localhost\nsubjectKeyIdentifier=hash\n'
                              'authorityKeyIdentifier=keyid\n')     # Python 3.13 insists on these
        openssl('req', *key, '-subj', f'/CN={common_name}', '-keyout', folder / f'{name}.key', '-out',
                folder / f'{name}.csr')
        openssl('x509', '-req', '-in', folder / f'{name}.csr', '-CA', folder / 'ca.crt', '-CAkey', folder / 'ca.key',
                '-CAcreateserial', '-days', 2, '-extfile', extensions, '-out', folder / f'{name}.crt')
