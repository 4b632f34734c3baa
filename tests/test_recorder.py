"""The shared memory: what is noted of plugins, whom a crash is blamed on, and which loop has least to do."""

from __future__ import annotations

import os

import pytest

from mqlite.recorder import ABSENT, DEATHS, NO_DIGEST, Note, Recorder, culprits, digest, frames, in_foreign_thread, mark

BODY = b'{"recipient": "a@example.com"}'
SAID = """ready
Fatal Python error: Segmentation fault

Thread 0x00007f4c00000001 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 982 in run

Current thread 0x00007f4c00000002 (most recent call first):
  File "/srv/mqlite.pyz/mqlite/plugin/loader.py", line 75 in call
  File "<stdin>", line 9 in <module>

Extension modules: _a.b, c (total: 2)
"""


def test_a_call_is_noted_until_it_returns() -> None:
    one, other = Recorder(2).seats
    one.take(7)
    assert one.read() is None
    one.enter(mark('10-a.so: mq_smtp_out_data'), digest(BODY))
    assert one.read() == Note('10-a.so: mq_smtp_out_data', digest(BODY), 7) and other.read() is None
    one.leave()
    assert one.read() is None
    one.enter(mark('b'))
    assert one.read() == Note('b', NO_DIGEST, 7)


@pytest.mark.parametrize(('text', 'kept'), [
    ('x' * 111, 'x' * 111),
    ('x' * 112, 'x' * 111),
    ('\xe4' * 56, '\xe4' * 55 + '\ufffd'),
    ('\udcff', '?'),
])
def test_a_text_of_any_length_fits_and_harms_no_neighbour(text: str, kept: str) -> None:
    before, one, after = Recorder(3).seats
    one.enter(mark(text), digest(BODY))
    assert one.read() == Note(kept, digest(BODY), 0)
    assert (before.read(), after.read(), before.sessions, after.sessions) == (None, None, ABSENT, ABSENT)


def test_it_is_one_memory_for_parent_and_child() -> None:
    recorder = Recorder(1)
    pid = os.fork()
    if not pid:
        recorder.seats[0].enter(mark('in the child'))
        os._exit(0)
    os.waitpid(pid, 0)
    note = recorder.seats[0].read()
    assert note is not None and note.call == 'in the child'


def test_a_message_is_condemned_after_three_deaths_and_no_other_is() -> None:
    recorder = Recorder(1)
    for deaths in range(1, DEATHS + 1):
        assert not recorder.is_condemned(BODY)
        assert recorder.blame(digest(BODY)) == deaths
    assert recorder.is_condemned(BODY) and not recorder.is_condemned(BODY + b' ')


def test_a_thousand_are_remembered_and_the_oldest_makes_room() -> None:
    recorder = Recorder(1)
    bodies = [b'%d' % number for number in range(1001)]
    for body in bodies:
        for _ in range(DEATHS):
            recorder.blame(digest(body))
    assert [body for body in bodies if not recorder.is_condemned(body)] == [b'0']
    assert recorder.seats[0].read() is None


def test_what_is_counted_is_bounded() -> None:
    recorder = Recorder(1)
    for number in range(1001):
        recorder.blame(digest(b'%d' % number))
    assert recorder.blame(digest(b'1')) == 2 and recorder.blame(digest(b'0')) == 1


def test_a_death_that_the_supervisor_has_not_heard_of_counts() -> None:
    recorder = Recorder(2)
    recorder.blame(digest(BODY))
    recorder.seats[1].enter(mark('of the dead'), digest(BODY))
    assert not recorder.is_condemned(BODY)
    recorder.blame(digest(BODY))
    assert recorder.is_condemned(BODY) and not recorder.is_condemned(b'another')
    recorder.seats[1].leave()
    assert not recorder.is_condemned(BODY)


def test_several_deaths_that_the_supervisor_has_not_heard_of() -> None:
    recorder = Recorder(3)
    recorder.blame(digest(BODY))
    for seat in recorder.seats[1:]:
        assert not recorder.is_condemned(BODY)
        seat.enter(mark('of the dead'), digest(BODY))
    assert recorder.is_condemned(BODY)


@pytest.mark.parametrize(('sessions', 'busiest'), [
    ([0, 0], False), ([1, 0], False), ([2, 0], True), ([9, 8], False), ([8, 6], True), ([9, 7], False),
    ([16, 14], False), ([16, 13], True), ([99, ABSENT], False), ([0, ABSENT], False),
])
def test_who_has_clearly_less_to_do_comes_first(sessions: list[int], busiest: bool) -> None:
    recorder = Recorder(2)
    for seat, count in zip(recorder.seats, sessions):
        seat.sessions = count
    assert recorder.is_busiest(recorder.seats[0]) == busiest
    recorder.seats[1].leave_for_good()
    assert not recorder.is_busiest(recorder.seats[0])


def test_the_thread_that_crashed_is_to_blame() -> None:
    one, other = (Note(name, NO_DIGEST, thread) for name, thread in (('a', 0x7f4c00000001), ('b', 0x7f4c00000002)))
    assert culprits(SAID, [one, other]) == [other]
    assert culprits(SAID.replace('02 (', '03 ('), [one, other]) == []           # a thread that is not a loop
    assert culprits(SAID.replace('Current t', 'T'), [one, other]) == []         # one that Python does not know
    assert culprits('ready\n', [one, other]) == [one, other]                    # killed: nothing is known
    assert in_foreign_thread(SAID.replace('Current t', 'T'))
    assert not in_foreign_thread(SAID) and not in_foreign_thread('ready\n')


def test_the_lines_of_python_are_one_line() -> None:
    assert frames(SAID) == 'call loader.py:75 < <module> <stdin>:9'
    assert frames('ready\n') == ''
