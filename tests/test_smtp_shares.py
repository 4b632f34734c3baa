"""How connections in and out share the places: a table, and what must always hold."""

from __future__ import annotations

import random

import pytest

from mqlite.smtp.shares import UNLIMITED, Share, Shares


def is_full(share: Share) -> bool:
    """For mypy, which believes that a property stays as it was."""
    return share.full


@pytest.mark.parametrize(('total', 'incoming', 'outgoing', 'most'), [
    (100, 50, 75, (50, 75)),  # the example of MailerQ's documentation
    (500, 0, 0, (450, 450)),
    (500, 500, 0, (500, 450)),
    (500, 0, 100, (450, 100)),
    (100, 1000, 1000, (100, 100)),
    (1, 0, 0, (1, 1)),
    (9, 0, 0, (9, 9)),
    (10, 0, 0, (9, 9)),
])
def test_maxima(total: int, incoming: int, outgoing: int, most: tuple[int, int]) -> None:
    shares = Shares(total, incoming, outgoing)
    assert (shares.incoming.most, shares.outgoing.most) == most


def test_the_example_of_the_documentation() -> None:
    """75 outgoing leave 25 for clients; clients may be 50 when there are fewer than 50 outgoing."""
    shares = Shares(100, 50, 75)
    for _ in range(75):
        shares.outgoing.take()
    assert is_full(shares.outgoing)
    for _ in range(25):
        assert not is_full(shares.incoming)
        shares.incoming.take()
    assert is_full(shares.incoming)
    for _ in range(25):
        shares.outgoing.give_back()
        assert not is_full(shares.incoming)
        shares.incoming.take()
    shares.outgoing.give_back()
    assert is_full(shares.incoming) and not is_full(shares.outgoing)


def test_who_waits_is_told_when_the_other_direction_makes_room() -> None:
    told: list[int] = []
    shares = Shares(10, 8, 8)
    shares.outgoing.on_room = lambda: told.append(shares.used)
    for _ in range(6):
        shares.incoming.take()
    for _ in range(4):
        shares.outgoing.take()
    shares.outgoing.give_back()
    assert told == [], 'it knows itself'
    shares.outgoing.take()
    shares.incoming.give_back()
    shares.incoming.give_back()
    assert told == [9], 'there was no room before, and then there was'


def test_never_too_many() -> None:
    generator = random.Random(5)
    for _ in range(100):
        total = generator.randrange(1, 30)
        shares = Shares(total, generator.randrange(30), generator.randrange(30))
        for _ in range(300):
            share = generator.choice([shares.incoming, shares.outgoing])
            if generator.random() < 0.6:
                if not share.full:
                    share.take()
            elif share.used:
                share.give_back()
            assert shares.used == shares.incoming.used + shares.outgoing.used <= total
            assert shares.incoming.used <= shares.incoming.most and shares.outgoing.used <= shares.outgoing.most


def test_no_limit() -> None:
    assert Shares().incoming.most > 0.8 * UNLIMITED and not Shares().outgoing.full
