"""A short run of the fuzz program, so that it stays able to run; the long one is `python3 -m tests.peers.fuzz_amqp`."""

from __future__ import annotations

import pytest

from mqlite.amqp import codec
from tests.peers.fuzz_amqp import run

OUTCOMES = {    # each must be met, or the mutations no longer reach what they should
    'method decoded', 'method refused 502', 'method refused 540', 'properties decoded', 'properties refused 502',
    'table decoded', 'table refused 502', 'machine accepted', 'machine failed', 'address accepted', 'address refused',
}


@pytest.mark.parametrize('seed', [1, 2])
def test_a_few_thousand_inputs(seed: int) -> None:
    assert set(run(3500, seed)) == OUTCOMES


def test_it_finds_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(codec._DECODERS, b't', lambda reader, depth: reader.data[reader.at + 10_000])
    with pytest.raises(AssertionError, match='IndexError'):
        run(3500, 1)
