"""The brake on guessing: delays, the cut-off, decay, what is one client, what is one login, and the bound on memory."""

from __future__ import annotations

import contextlib

import pytest

from mqlite.auth.guesses import AT_ONCE, CUT_OFF, ENTRIES, HALF_LIFE, LOGIN_DELAY, LONGEST_DELAY, Guesses

CLIENT, OTHER = '192.0.2.1', '198.51.100.7'


def fail(guesses: Guesses, times: int, client: str = CLIENT, login: str = 'tim', now: float = 0.0) -> None:
    for _ in range(times):
        guesses.failed(client, login, now)


@pytest.mark.parametrize(('failures', 'delay'), [
    (0, 0), (1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, LONGEST_DELAY), (9, LONGEST_DELAY), (10, None), (50, None)])
def test_the_delay_grows_up_to_the_cut_off(failures: int, delay: float | None) -> None:
    guesses = Guesses()
    fail(guesses, failures)
    assert guesses.delay(CLIENT, 'another', 0) == delay


def test_failures_decay() -> None:
    guesses = Guesses()
    fail(guesses, 4)
    assert guesses.delay(CLIENT, 'x', HALF_LIFE) == 2
    assert guesses.delay(CLIENT, 'x', 2 * HALF_LIFE) == 1
    assert guesses.delay(CLIENT, 'x', 4 * HALF_LIFE) == 0


def test_who_was_cut_off_may_try_again_and_is_soon_cut_off_again() -> None:
    """How many guesses somebody has in a day who tries once a second."""
    guesses, tried = Guesses(), 0
    for second in range(86400):
        if guesses.delay(CLIENT, f'login{second}', second) is not None:
            tried += 1
            guesses.failed(CLIENT, f'login{second}', second)
    assert CUT_OFF < tried < 86400 / 75


def test_a_login_is_slowed_for_strangers_and_never_cut_off() -> None:
    guesses = Guesses()
    guesses.succeeded(OTHER, 'tim', 0)
    for number in range(1000):
        guesses.failed(f'10.0.{number // 250}.{number % 250}', 'tim', 0)
    assert guesses.delay('203.0.113.1', 'tim', 0) == LOGIN_DELAY
    assert guesses.delay('203.0.113.1', 'TIM', 0) == LOGIN_DELAY
    assert guesses.delay(OTHER, 'tim', 0) == 0          # he has been here before
    assert guesses.delay(OTHER, 'tom', 0) == 0


def test_success_does_not_take_back_failures() -> None:
    guesses = Guesses()
    for _ in range(20):
        guesses.failed(CLIENT, 'victim', 0)
        guesses.succeeded(CLIENT, 'own', 0)
    assert guesses.delay(CLIENT, 'own', 0) is None
    assert guesses.delay(OTHER, 'own', 0) == 0


@pytest.mark.parametrize(('one', 'other', 'same'), [
    ('192.0.2.1', '192.0.2.2', False),
    ('192.0.2.1', '::ffff:192.0.2.1', True),
    ('2001:db8::1', '2001:db8::2:3:4:5', True),
    ('2001:db8::1', '2001:db8:0:1::1', False),
    ('fe80::1%eth0', 'fe80::1', True),
])
def test_what_is_one_client(one: str, other: str, same: bool) -> None:
    guesses = Guesses()
    fail(guesses, 20, one)
    assert (guesses.delay(other, 'x', 0) is None) is same


def test_memory_is_bounded_and_the_youngest_stay() -> None:
    guesses = Guesses()
    for number in range(ENTRIES + 100):
        client = f'10.{number >> 16}.{number >> 8 & 255}.{number & 255}'
        guesses.failed(client, f'login{number}' + 'x' * 5000, number * 1e-3)
        guesses.succeeded(client, f'login{number}', number * 1e-3)
    fullest = max(len(counts) for counts in (guesses._clients, guesses._logins, guesses._known))
    assert fullest == ENTRIES
    assert max(map(len, guesses._logins)) <= 128
    assert guesses.delay('10.0.0.1', 'x', 10) == 0
    assert guesses.delay(client, 'x', 10) != 0


def test_what_is_touched_again_is_young() -> None:
    guesses = Guesses()
    fail(guesses, 3)
    for number in range(ENTRIES - 1):
        guesses.failed(f'10.{number >> 16}.{number >> 8 & 255}.{number & 255}', 'x', 0)
    fail(guesses, 1)
    fail(guesses, 1, OTHER)
    assert guesses.delay(CLIENT, 'y', 0) == 8


def test_what_is_looked_at_counts_for_others_of_the_network() -> None:
    guesses = Guesses()
    fail(guesses, 1)
    with guesses.looking_at(CLIENT), guesses.looking_at(CLIENT):
        assert guesses.delay(CLIENT, 'x', 0) == 4
        assert guesses.delay(OTHER, 'x', 0) == 0
        fail(guesses, 7)
        assert guesses.delay(CLIENT, 'x', 0) is None
    assert guesses.delay(CLIENT, 'x', 0) == LONGEST_DELAY


def test_a_network_that_has_not_failed_may_log_in_often_at_once() -> None:
    guesses = Guesses()
    with contextlib.ExitStack() as stack:
        delays = []
        for _ in range(AT_ONCE + 3):
            delays.append(guesses.delay(CLIENT, 'x', 0))
            stack.enter_context(guesses.looking_at(CLIENT))
        assert delays == [0.0] * AT_ONCE + [1.0, 2.0, 4.0]
    assert guesses.delay(CLIENT, 'x', 0) == 0 and not guesses._looked_at
