"""The clock that paces, the meter of what goes, and what our experience with a destination allows."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest

from mqlite.delivery import standing
from mqlite.delivery.pace import LATE_SECONDS, PATIENCE, Flow, Pace
from mqlite.delivery.room import AGAIN_PER_SECOND, LEAST_WAIT, LONGEST_WAIT, Outside, Room
from mqlite.delivery.standing import (
    FIRST_PAUSE,
    FIRST_WINDOW,
    HOLD_SECONDS,
    JITTER,
    LONGEST_HOLD,
    LONGEST_PAUSE,
    STEP_SECONDS,
    Backoff,
    Lately,
    Window,
)


def moments(pace: Pace, asked: Iterable[float]) -> list[float]:
    """When each of those who ask at these moments goes."""
    found, now = [], 0.0
    for moment in asked:
        now = max(now, moment)
        now += pace.wait(now)
        pace.take(now)
        found.append(round(now, 6))
    return found


@pytest.mark.parametrize(('per_minute', 'asked', 'gone'), [
    (0,    [0, 0, 0, 0],             [0, 0, 0, 0]),
    (60,   [0, 0, 0, 0],             [0, 1, 2, 3]),
    (600,  [0, 0, 0, 0],             [0, 0.1, 0.2, 0.3]),
    (60,   [0, 0.5, 2.0, 2.0],       [0, 1, 2, 3]),
    (60,   [0, 1.4, 2.0, 3.0],       [0, 1.4, 2.0, 3.0]),       # one late: the others keep their moments
    (60,   [0, 50, 50, 50, 50],      [0, 50, 50, 51, 52]),      # a long time late: one interval is made good, no more
    (6000, [0, 10, 10] + [10] * 200, None),
])
def test_a_pace(per_minute: float, asked: list[float], gone: list[float] | None) -> None:
    pace = Pace()
    pace.limit(per_minute, 0.0)
    found = moments(pace, asked)
    if gone is None:
        assert sum(moment == 10 for moment in found) == round(LATE_SECONDS * per_minute / 60) + 1
    else:
        assert found == gone


def test_idleness_is_no_credit() -> None:
    pace = Pace()
    pace.limit(60, 0.0)
    assert moments(pace, [0.0]) == [0.0]
    pace.begin(100.0)
    assert moments(pace, [100.0] * 3) == [100.0, 101.0, 102.0]


def test_who_did_not_go_gives_the_moment_back() -> None:
    pace = Pace()
    pace.limit(60, 0.0)
    assert moments(pace, [0.0, 0.0]) == [0.0, 1.0]
    pace.give_back()
    assert pace.wait(1.0) == 0.0


@pytest.mark.parametrize(('before', 'after', 'wait'), [
    (0, 60, 0.0), (60, 0, 0.0), (1, 60, 1.0), (60, 1, 1.0), (60, 60, 1.0)])
def test_another_limit(before: float, after: float, wait: float) -> None:
    """It holds from now on; nobody waits longer than under the limits of both."""
    pace = Pace()
    pace.limit(before, 0.0)
    pace.take(0.0)
    pace.limit(after, 0.0)
    assert pace.wait(0.0) == wait
    assert pace.rate == (after / 60)


def test_a_flow() -> None:
    flow = Flow(0.0)
    assert flow.rate(PATIENCE - 0.1) == math.inf and flow.rate(5.0) == 0.2
    for number in range(1, 51):
        flow.passed(number * 0.1)
    assert flow.rate(5.0) == flow.rate(6.9) == pytest.approx(10.0)
    assert flow.rate(15.0) == pytest.approx(0.1), 'the silence is noticed without an answer'
    flow.begin(15.0)
    assert flow.rate(15.0) == pytest.approx(10.0), 'it was no silence: there was nothing to answer'
    for number in range(1, 31):
        flow.passed(15.0 + number)
    assert flow.rate(45.0) == pytest.approx(1.0, rel=0.01)


def test_a_flow_faster_than_the_clock() -> None:
    flow = Flow(1.0)
    for _ in range(10):
        flow.passed(1.0)
    assert flow.rate(1.0) == math.inf and flow.rate(2.5) == math.inf


def test_a_window() -> None:
    window = Window()
    for _ in range(3):
        window.answered(0.0, 7)
    assert window.size == 7 == FIRST_WINDOW + 2
    window.refused(0.0, 4)
    window.refused(1.0, 4)
    assert window.size == 4 and window.held_until(1.0) == 1.0 + HOLD_SECONDS
    window.answered(HOLD_SECONDS, 7)
    assert window.size == 4
    window.answered(1.0 + HOLD_SECONDS, 7)
    window.answered(1.0 + HOLD_SECONDS, 7)
    assert window.size == 5
    now = 1.0 + HOLD_SECONDS + STEP_SECONDS
    window.answered(now, 7)
    assert window.size == 6
    holds = []
    for _ in range(6):
        now = max(window.held_until(now), now)
        window.refused(now, 5)
        holds.append(window.held_until(now) - now)
    assert holds == [120.0, 240.0, 480.0, 960.0, LONGEST_HOLD, LONGEST_HOLD]
    window.answered(now, 5)
    assert window.held_until(now) == 0.0, 'all that is allowed was reached: it is as if none had been refused'


def test_a_window_never_closes_and_never_grows_by_a_refusal() -> None:
    window = Window()
    window.failed()
    assert window.size == 1
    window.refused(0.0, 9)
    assert window.size == 1
    window.refused(0.0, 0)
    assert window.size == 1


@pytest.mark.parametrize('chance', [0.0, 0.5, 1.0])
def test_a_backoff(chance: float) -> None:
    backoff = Backoff()
    assert backoff.left(0.0) == 0.0
    pauses = []
    for _ in range(100):
        backoff.failed(1000.0, chance)
        pauses.append(backoff.left(1000.0) / (1 - JITTER + 2 * JITTER * chance))
    assert pauses[:7] == pytest.approx([FIRST_PAUSE, 30, 60, 120, 240, 480, LONGEST_PAUSE])
    assert pauses[99] == pytest.approx(LONGEST_PAUSE)
    backoff.succeeded()
    assert backoff.left(0.0) == 0.0
    backoff.failed(0.0, 0.5)
    assert backoff.left(0.0) == FIRST_PAUSE


def test_who_is_outside() -> None:
    outside = Outside()
    for due in (105.5, 105.9, 107.0, 300.0):
        outside.add(due)
    assert [outside.count(now) for now in (100.0, 105.95, 106.0, 107.5, 108.0, 299.0, 301.0, 1e6)] == [
        4, 4, 2, 2, 1, 1, 0, 0]
    outside.add(5.0)
    assert outside.count(1e6) == 1 and outside.count(1e6 + 1) == 0, 'whose time is over comes at once'


def test_who_was_put_back_is_looked_at_again_soon_while_there_are_few() -> None:
    room = Room(1000, 1000)
    assert room.longest_wait(0.0) == LEAST_WAIT
    for _ in range(10 * AGAIN_PER_SECOND):
        room.outside.add(5.0)
    assert room.longest_wait(0.0) == 10.0 and room.longest_wait(6.0) == LEAST_WAIT
    for _ in range(AGAIN_PER_SECOND * int(LONGEST_WAIT + 10)):
        room.outside.add(50.0)
    assert room.longest_wait(6.0) == LONGEST_WAIT


def test_what_is_believed_of_a_server_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    down = Lately[str](60.0)
    assert not down.holds('a', 0.0)
    down.note('a', 10.0)
    assert [down.holds('a', now) for now in (10.0, 69.9, 70.0)] == [True, True, False]
    down.note('a', 70.0)
    down.forget('a')
    down.forget('b')
    assert not down.holds('a', 70.0)
    monkeypatch.setattr(standing, 'REMEMBERED', 2)
    for server in ('a', 'b', 'c'):
        down.note(server, 80.0)
    assert [down.holds(server, 81.0) for server in ('a', 'b', 'c')] == [False, False, True]
