"""The SMTP client against a scripted server, for the tests of test_smtp_client*: fixtures, and outcomes as tuples.

A test file takes `bench` and `make` by assigning them.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Callable

import pytest

from mqlite.loop.tls import TlsContext
from mqlite.smtp.reply import ClientFailure, Reply
from tests.support.exchanger import ClientBench

PIPELINING = b'PIPELINING'
Make = Callable[..., ClientBench]


@pytest.fixture
def make(closing: ExitStack) -> Make:
    """make(extension, …, tls=…): a bench, closed at the end."""
    def start(*extensions: bytes, tls: TlsContext | None = None, client_tls: TlsContext | None = None) -> ClientBench:
        bench = ClientBench(*extensions, tls=tls, client_tls=client_tls)
        closing.callback(bench.close)
        return bench
    return start


@pytest.fixture(params=[(), (PIPELINING,)], ids=['one by one', 'pipelined'])
def bench(make: Make, request: pytest.FixtureRequest) -> ClientBench:
    """A bench whose session has been greeted, without and with pipelining."""
    made = make(*request.param)
    assert made.start() is None
    return made


def attempt(bench: ClientBench) -> Reply | ClientFailure:
    return bench.start() or bench.send()


def failed(outcome: Reply | ClientFailure | None) -> ClientFailure:
    assert isinstance(outcome, ClientFailure)
    return outcome


def summary(outcome: Reply | ClientFailure | None) -> tuple[str, str, int | None]:
    failure = failed(outcome)
    return failure.state, failure.kind, failure.reply.code if failure.reply else None
