"""Whether and when a message is tried again."""

from __future__ import annotations

from typing import Any

import pytest

from mqlite.delivery.retry import RetryPolicy, deadline, is_over, next_attempt
from mqlite.message.document import Document
from mqlite.message.identifier import format_moment
from mqlite.message.result import Result

NOW = 1_800_000_000.0
POLICY = RetryPolicy([600, 1200, 3600], 0, 86400.0)
LATER = Result('rcptto', 'error', code=450)


def document(attempts: int = 0, first: float = NOW - 1000, **fields: Any) -> Document:
    """With so many attempts behind it, the first of them at a moment."""
    results = [{'time': format_moment(first), 'state': 'rcptto'}, *[{}] * (attempts - 1)] if attempts else []
    return Document({'results': results, **fields} if results else fields)


@pytest.mark.parametrize(('result', 'again'), [
    (Result('message', 'accepted'), False),
    (Result('rcptto', 'error', True), False),
    (Result('rcptto', 'error'), True),
    (Result('message', 'timeout'), True),
    (Result('ehlo', 'lost'), True),
    (Result('data', 'invalid'), True),
])
def test_what_is_tried_again(result: Result, again: bool) -> None:
    assert (next_attempt(document(), result, POLICY, NOW) is not None) is again


@pytest.mark.parametrize(('attempts', 'fields', 'seconds'), [
    (0, {},                            600),
    (1, {},                            1200),
    (2, {},                            3600),
    (3, {},                            3600),
    (9, {},                            3600),
    (0, {'retries': [7]},              7),
    (5, {'retries': [7]},              7),
    (1, {'retries': ['7', 8, 9]},      8),
    (7, {'retries': [7, 8, 9]},        9),
    (0, {'retries': [0]},              1),
    (1, {'retries': [5, 0]},           1),
])
def test_the_interval(attempts: int, fields: dict[str, Any], seconds: int) -> None:
    assert next_attempt(document(attempts, **fields), LATER, POLICY, NOW) == NOW + seconds


@pytest.mark.parametrize(('attempts', 'own', 'policy', 'again', 'over'), [
    (0, None, 0, True,  False),
    (99, None, 0, True, False),
    (0, None, 1, False, False),
    (1, None, 3, True,  False),
    (2, None, 3, False, False),
    (3, None, 3, False, True),
    (1, 3,    1, True,  False),
    (2, 3,    9, False, False),
    (2, '3',  0, False, False),
    (4, 3,    0, False, True),
    (99, 0,   1, True,  False),
])
def test_the_number_of_attempts(attempts: int, own: object, policy: int, again: bool, over: bool) -> None:
    """`attempts` are behind it already; the one whose result this is comes on top."""
    given, limited = document(attempts, maxattempts=own), RetryPolicy([600], policy, 86400.0)
    assert (next_attempt(given, LATER, limited, NOW) is not None) is again
    assert is_over(given, limited, NOW) is over


@pytest.mark.parametrize(('attempts', 'first', 'own', 'expected'), [
    (0, NOW,         None,       NOW + 86400),
    (1, NOW - 1000,  None,       NOW + 85400),
    (4, NOW - 90000, None,       NOW - 3600),
    (0, NOW,         NOW + 5,    NOW + 5),
    (4, NOW - 90000, NOW + 5,    NOW + 5),
    (1, NOW - 1000,  NOW - 5,    NOW - 5),
])
def test_the_deadline(attempts: int, first: float, own: float | None, expected: float) -> None:
    fields = {} if own is None else {'maxdelivertime': format_moment(own)}
    given = document(attempts, first, **fields)
    assert deadline(given, POLICY, NOW) == expected
    assert is_over(given, POLICY, NOW) is (expected <= NOW)
    assert next_attempt(given, LATER, POLICY, NOW) == max(NOW, min(NOW + (600, 1200, 0, 0, 3600)[attempts], expected))


def test_the_very_moment_is_too_late() -> None:
    given = document(maxdelivertime=format_moment(NOW))
    assert is_over(given, POLICY, NOW) and not is_over(given, POLICY, NOW - 0.5)
