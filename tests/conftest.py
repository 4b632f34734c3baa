"""Fixtures for end-to-end tests. A factory may be called more than once; what it made is closed when the test ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

import build
from tests.support.accounts import Accounts
from tests.support.broker import Broker
from tests.support.daemon import Daemon
from tests.support.database import close_databases
from tests.support.peers import Certificate, SmtpSink, make_certificate
from tests.support.process import ROOT
from tests.support.sink import CapturingSink

# No test trusts an authority of this host. To read 140 of them takes 50 ms for each context, those of daemons too.
os.environ.update(SSL_CERT_FILE=os.devnull, SSL_CERT_DIR=os.devnull)


def pytest_make_parametrize_id(val: object) -> str | None:
    """A value of a megabyte is no name: pytest prints it, and children have it in their environment."""
    return f'{val[:60]!a}... {len(val)}' if isinstance(val, (str, bytes)) and len(val) > 200 else None


@pytest.fixture
def closing() -> Iterator[contextlib.ExitStack]:
    """What is registered here is closed at the end of the test, last first, whatever fails."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(autouse=True)
def databases() -> Iterator[None]:
    """Those that a test has opened are closed when it ends."""
    yield
    close_databases()


@pytest.fixture
def start_daemon(tmp_path: Path, closing: contextlib.ExitStack) -> Callable[..., Daemon]:
    """start_daemon(smtp_sink_port=…, …): a daemon that has greeted. At the end it must stop cleanly."""
    def start(**settings: object) -> Daemon:
        folder = Path(tempfile.mkdtemp(prefix='daemon-', dir=tmp_path))
        daemon = Daemon(folder, **settings)     # type: ignore[arg-type]  # no setting is called program
        closing.callback(daemon.close)
        return daemon.start()
    return start


@pytest.fixture
def smtp_sink(tmp_path: Path, closing: contextlib.ExitStack) -> Callable[..., SmtpSink]:
    """smtp_sink('-r', 'RCPT', …): Postfix's smtp-sink, listening."""
    def start(*options: str) -> SmtpSink:
        sink = SmtpSink(Path(tempfile.mkdtemp(prefix='sink-', dir=tmp_path)), *options)
        closing.callback(sink.close)
        return sink
    return start


@pytest.fixture
def sink(closing: contextlib.ExitStack) -> CapturingSink:
    """A sink of our own that keeps exact bytes; set its `script` for replies other than the usual."""
    made = CapturingSink()
    closing.callback(made.close)
    return made


@pytest.fixture
def tls_sink(certificate: Certificate, closing: contextlib.ExitStack) -> CapturingSink:
    """As `sink`, and it offers STARTTLS."""
    made = CapturingSink(certificate)
    closing.callback(made.close)
    return made


@pytest.fixture(scope='session')
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp('certificate'))


@pytest.fixture
def server_tls(certificate: Certificate) -> ssl.SSLContext:
    """Of a server in the process of the test."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    return context


_brokers: list[Broker] = []


def pytest_collection_finish(session: pytest.Session) -> None:
    """A broker takes seconds to start: it does so while the tests that need none run."""
    items = [item for item in session.items if isinstance(item, pytest.Function)]
    if not session.config.option.collectonly and any('broker' in item.fixturenames for item in items):
        _brokers.append(Broker(tls=True).start())


def pytest_sessionfinish() -> None:
    for broker in _brokers:
        broker.close()


@pytest.fixture(scope='session')
def broker() -> Broker:
    """A private RabbitMQ, shared by the tests of a session. Who breaks it mends it."""
    return _brokers[0].wait_ready()


@pytest.fixture
def start_accounts(start_daemon: Callable[..., Daemon], sink: CapturingSink,
                   closing: contextlib.ExitStack) -> Callable[..., Accounts]:
    """start_accounts(broker, url, setting=…): a daemon on a broker without queues, under load."""
    def start(broker: Broker, url: str = '', **settings: object) -> Accounts:
        broker.delete_queues()
        accounts = Accounts(start_daemon, broker, sink, url, **settings)
        closing.callback(accounts.end_load)
        return accounts
    return start


@pytest.fixture(scope='session')
def archive() -> Iterator[Path]:
    """mqlite.pyz of this checkout, in a folder that everybody may read and nobody may write."""
    folder = Path(tempfile.mkdtemp(prefix='mqlite-archive-'))
    build.pack(ROOT, folder / 'mqlite.pyz')
    folder.chmod(0o555)
    yield folder / 'mqlite.pyz'
    shutil.rmtree(folder)
