"""Identifiers of messages, and the notation of moments."""

from __future__ import annotations

import pytest

from mqlite.message.identifier import Identifiers, base36, format_moment, parse_moment


@pytest.mark.parametrize(('number', 'text'), [(0, '0'), (9, '9'), (10, 'a'), (35, 'z'), (36, '10'), (36 ** 4, '10000')])
def test_base36(number: int, text: str) -> None:
    assert base36(number) == text
    assert int(text, 36) == number


def test_identifiers_are_unique_and_fit_a_received_line() -> None:
    moments, entropies = (1_700_000_000.0, 1_700_000_001.9), (1, 2, 2 ** 64 - 1)
    sources = [Identifiers('s', now, entropy) for now in moments for entropy in entropies]
    names = [source.next() for source in sources for _ in range(1000)]
    assert len(set(names)) == len(names)
    assert all(name.replace('-', '').isalnum() and name.isascii() and len(name) < 20 for name in names)


def test_the_count_starts_at_one() -> None:
    source = Identifiers('mx7', 0.9, 36 ** 4)
    assert [source.next(), source.next()] == ['mx700-1', 'mx700-2']


@pytest.mark.parametrize(('seconds', 'text'), [
    (0, '1970-01-01 00:00:00'),
    (951782400, '2000-02-29 00:00:00'),
    (1700000000, '2023-11-14 22:13:20'),
    (4102444799, '2099-12-31 23:59:59'),
    (-1, '1969-12-31 23:59:59'),
])
def test_moments(seconds: int, text: str) -> None:
    assert format_moment(seconds) == text
    assert parse_moment(text) == seconds


def test_a_moment_is_cut_to_its_second() -> None:
    assert format_moment(1700000000.999) == '2023-11-14 22:13:20'


@pytest.mark.parametrize('text', [
    '', '2023-11-14', '2023-11-14T22:13:20', '2023-11-14 22:13:20Z', ' 2023-11-14 22:13:20', '2023-11-14 22:13:20\n',
    '2023-1-14 22:13:20', '2023-13-14 22:13:20', '2023-02-29 22:13:20', '2023-11-14 24:00:00', '2023-11-14 23:59:60',
    '0000-01-01 00:00:00', '２０２３-11-14 22:13:20', '٢٠٢٣-11-14 22:13:20', None, 1700000000, 1.5, [], {}, True])
def test_no_moment(text: object) -> None:
    with pytest.raises(ValueError):
        parse_moment(text)
