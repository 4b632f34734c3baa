"""What a reply or a failure means."""

from __future__ import annotations

from typing import Any

import pytest

from mqlite.delivery import verdict
from mqlite.message.result import RESULTS, STATES, Connected, Result
from mqlite.smtp.reply import ClientFailure, Reply

LINK = Connected('mx.example', '192.0.2.1', '192.0.2.2', 3, 400, 200)


@pytest.mark.parametrize(('kind', 'code', 'permanent'), [
    ('error', 550, True), ('error', 500, True), ('error', 599, True), ('error', 554, True),
    ('error', 450, False), ('error', 421, False), ('error', 499, False),
    ('invalid', 250, False), ('invalid', 354, False), ('invalid', 554, False),
    ('error', None, False), ('timeout', None, False), ('lost', None, False), ('invalid', None, False),
])
def test_failures(kind: str, code: int | None, permanent: bool) -> None:
    """Only a refusal by 5yz is final. An error without a reply is one of TLS."""
    reply = Reply(code, '5.1.1', ('no such', 'user')) if code else None
    result = verdict.failed(ClientFailure('rcptto', kind, 'what happened', reply), LINK)
    assert (result.state, result.result, result.permanent, result.code) == ('rcptto', kind, permanent, code)
    assert result.status == ('5.1.1' if code else '')
    assert result.description == ('no such user' if code else 'what happened')
    assert result.connected is LINK and result.dsn is None


@pytest.mark.parametrize('dsn', [True, False])
def test_delivered(dsn: bool) -> None:
    result = verdict.delivered(Reply(250, '2.0.0', ('kept', 'as 1')), dsn, LINK)
    assert result == Result('message', 'accepted', False, 250, '2.0.0', 'kept as 1', dsn, LINK)


#   result                                               state      result     permanent  words in the description
@pytest.mark.parametrize(('result', 'state', 'how', 'permanent', 'words'), [
    (verdict.unresolved(True, 'no such domain'),         'dns',     'error',   True,      'no such domain'),
    (verdict.unresolved(False, 'SERVFAIL'),              'dns',     'timeout', False,     'SERVFAIL'),
    (verdict.not_connected('mx port 25', True, 'slow'),  'connect', 'timeout', False,     'mx port 25: slow'),
    (verdict.not_connected('mx port 25', False, 'no'),   'connect', 'error',   False,     'mx port 25: no'),
    (verdict.cannot_bind('not ours', True),              'bind',    'error',   True,      'not ours'),
    (verdict.cannot_bind('no port', False),              'bind',    'error',   False,     'no port'),
    (verdict.no_local_address('2001:db8::1'),            'process', 'error',   True,      '2001:db8::1'),
    (verdict.invalid('"mime" is missing'),               'process', 'invalid', True,      '"mime" is missing'),
    (verdict.expired(),                                  'process', 'timeout', True,      'time'),
    (verdict.internal_fault(),                           'process', 'error',   False,     'log'),
])
def test_without_a_conversation(result: Result, state: str, how: str, permanent: bool, words: str) -> None:
    assert (result.state, result.result, result.permanent) == (state, how, permanent)
    assert words in result.description and result.connected is None
    assert state in STATES and how in RESULTS


@pytest.mark.parametrize('result', [
    verdict.delivered(Reply(250, '', ('x' * 9000,)), False, LINK),
    verdict.failed(ClientFailure('data', 'error', '', Reply(450, '', ('x' * 5000, 'y'))), LINK),
    verdict.failed(ClientFailure('data', 'lost', 'x' * 5000), LINK),
])
def test_what_a_server_said_is_bounded(result: Any) -> None:
    assert result.description == 'x' * verdict.TEXT_LIMIT
