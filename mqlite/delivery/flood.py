"""What is sent less of for a while after certain answers: the table `flood_responses`. Pure.

    an answer that is no 2yz ─► the first row whose `pattern` matches ─► nothing for `pause` seconds
                                                                         ─► its limits for `duration` seconds more

The pattern is compared with the text of the answer, and with the whole of it, as those of response_patterns are. What
the server of a destination has answered holds for that destination: its exchangers, from the local address that was
used. A limit of -1 is the one that holds anyhow, 0 is none. A row orders a pause, limits, or both.

Another such answer begins the time anew; it never ends a pause that lasts longer. A row that is deleted or changed ends
what it has ordered. Each worker goes by the answers that it got itself, and a restart forgets them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mqlite.database.patterns import Match, make_match
from mqlite.database.tables import Row, Usable
from mqlite.delivery.capacity import Capacity, make_capacity
from mqlite.delivery.response import answers_of
from mqlite.message.result import Result


@dataclass(frozen=True)
class FloodRule:
    """A row."""

    name: str
    matches: Match
    pause: float  # seconds
    duration: float  # seconds for which its limits hold
    row: Row


class FloodRules:
    """All of them."""

    def __init__(self, rules: Iterable[FloodRule] = ()) -> None:
        self.all = tuple(rules)

    def of(self, result: Result) -> FloodRule | None:
        """The rule about what a server has answered."""
        if result.code is None or result.connected is None or result.result == 'accepted':
            return None
        answers = answers_of(result)
        return next((rule for rule in self.all if any(rule.matches(text) for text in answers)), None)


class Flood:
    """What holds for one destination. `pausing`, `slowing`: the rule that has ordered it, and until when."""

    __slots__ = ('pausing', 'slowing')

    def __init__(self) -> None:
        self.pausing: tuple[FloodRule, float] | None = None
        self.slowing: tuple[FloodRule, float] | None = None

    def begin(self, rule: FloodRule, now: float) -> None:
        """Its server has answered so."""
        if rule.pause and rule.pause > self.pause_left(now):
            self.pausing = rule, now + rule.pause
        if rule.duration:
            self.slowing = rule, now + self.pause_left(now) + rule.duration

    def pause_left(self, now: float) -> float:
        """Seconds for which nothing is sent."""
        return _left(self.pausing, now)

    def slow_left(self, now: float) -> float:
        """Seconds for which the limits of a rule hold."""
        return _left(self.slowing, now)

    def change_in(self, now: float) -> float:
        """Seconds until something ends; 0 when all has."""
        return self.pause_left(now) or self.slow_left(now)

    def over(self, usual: Capacity) -> Capacity:
        """What holds in place of the usual limits."""
        return usual if self.slowing is None else make_capacity(self.slowing[0].row, usual)

    def keep(self, rules: FloodRules) -> None:
        """Only what these have ordered."""
        rows = [rule.row for rule in rules.all]
        self.pausing = self.pausing if self.pausing and self.pausing[0].row in rows else None
        self.slowing = self.slowing if self.slowing and self.slowing[0].row in rows else None


def _left(ordered: tuple[FloodRule, float] | None, now: float) -> float:
    return 0.0 if ordered is None else max(0.0, ordered[1] - now)


def read_floods(rows: Iterable[Row]) -> Usable[FloodRules]:
    """The table `flood_responses`, in the order of the rows."""
    rules, faults = [], []
    for row in rows:
        pattern, pause, duration = row.text('pattern'), max(0, row.number('pause')), max(0, row.number('duration'))
        try:
            if not pattern:
                raise ValueError('it has no pattern')
            if not pause and not duration:
                raise ValueError('it has neither a pause nor a duration')
            rules.append(FloodRule(row.text('name') or pattern, make_match(row.text('type'), pattern), float(pause),
                                   float(duration), row))
        except ValueError as error:
            faults.append(f'row {row.number("id")} of table flood_responses is left out: {error}')
    return Usable(FloodRules(rules), faults)
