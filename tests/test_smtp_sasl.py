"""SMTP AUTH: exchanges with the server from the first line to the credentials, and the client's side against them."""

from __future__ import annotations

import random
from base64 import b64encode
from typing import Callable, Union

import pytest

from mqlite.smtp.reply import REPLIES, BadReply
from mqlite.smtp.sasl import (
    FIELD_LIMIT,
    LINE_LIMIT,
    MECHANISMS,
    AuthRefused,
    ChallengeResponse,
    Credentials,
    Exchange,
    Password,
    cram_md5,
)
from mqlite.smtp.sasl_client import Login, choose_mechanism, client_steps

CHALLENGE = b'<1896.697170952@postoffice.reston.mci.net>'     # RFC 2195 section 2
DIGEST = 'b913a602c7eda7a495b4e6e7334d3890'
Answer = Union[bytes, Credentials, str]     # a str: the name of the refusal


def b64(octets: bytes) -> str:
    return b64encode(octets).decode()


def dialogue(argument: str, *lines: bytes, mechanisms: tuple[str, ...] = MECHANISMS) -> list[Answer]:
    """What the server says to `AUTH argument` and to each line."""
    exchange = Exchange(mechanisms, lambda: CHALLENGE)
    answers: list[Answer] = []
    try:
        answers.append(exchange.start(argument))
        for line in lines:
            answers.append(exchange.feed(line))
    except AuthRefused as refusal:
        answers.append(refusal.name)
    return answers


USERNAME, PASSWORD = b'334 VXNlcm5hbWU6\r\n', b'334 UGFzc3dvcmQ6\r\n'
CRAM = b'334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+\r\n'
TIM = b'tim ' + DIGEST.encode()

GOOD = [
    # RFC 4954 section 4.1 and RFC 4616 section 4
    ('PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm', (), [Password('PLAIN', 'tim', b'tanstaaftanstaaf')]),
    ('PLAIN', (b'AHRpbQB0YW5zdGFhZnRhbnN0YWFm\r\n',), [b'334 \r\n', Password('PLAIN', 'tim', b'tanstaaftanstaaf')]),
    ('plain ' + b64(b'tim\0tim\0pw'), (), [Password('PLAIN', 'tim', b'pw')]),
    ('  PLAIN   ', (b'AHQAcA==\r\n',), [b'334 \r\n', Password('PLAIN', 't', b'p')]),
    ('PLAIN ' + b64('\0josé@example.org\0pä ß'.encode()), (),
     [Password('PLAIN', 'josé@example.org', 'pä ß'.encode())]),
    ('PLAIN ' + b64(b'\0t\0\xff\xfe\n'), (), [Password('PLAIN', 't', b'\xff\xfe\n')]),
    ('PLAIN ' + b64(b'\0' + b'l' * FIELD_LIMIT + b'\0' + b'p' * FIELD_LIMIT), (),
     [Password('PLAIN', 'l' * FIELD_LIMIT, b'p' * FIELD_LIMIT)]),
    ('LOGIN', (b'dGlt\r\n', b'cHc=\r\n'), [USERNAME, PASSWORD, Password('LOGIN', 'tim', b'pw')]),
    ('LOGIN dGlt', (b'cHc=\r\n',), [PASSWORD, Password('LOGIN', 'tim', b'pw')]),
    ('CRAM-MD5', (b64(TIM).encode() + b'\r\n',), [CRAM, ChallengeResponse('CRAM-MD5', 'tim', CHALLENGE, DIGEST)]),
    ('cram-md5', (b64(b'two words ' + DIGEST.encode()).encode() + b'\r\n',),
     [CRAM, ChallengeResponse('CRAM-MD5', 'two words', CHALLENGE, DIGEST)]),
]


@pytest.mark.parametrize(('argument', 'lines', 'answers'), GOOD)
def test_exchanges_that_give_credentials(argument: str, lines: tuple[bytes, ...], answers: list[Answer]) -> None:
    assert dialogue(argument, *lines) == answers


@pytest.mark.parametrize(('argument', 'lines', 'refusal'), [
    ('', (), 'auth-syntax'),
    ('   ', (), 'auth-syntax'),
    ('PLAIN AHQAcA== x', (), 'auth-syntax'),
    ('GSSAPI', (), 'auth-mechanism'),
    ('PLAIN\0', (), 'auth-mechanism'),
    ('EXTERNAL =', (), 'auth-mechanism'),
    # cancelled, and what only looks like it
    ('PLAIN', (b'*\r\n',), 'auth-cancelled'),
    ('LOGIN', (b'*\r\n',), 'auth-cancelled'),
    ('LOGIN dGlt', (b'*\r\n',), 'auth-cancelled'),
    ('CRAM-MD5', (b'*\r\n',), 'auth-cancelled'),
    ('PLAIN *', (), 'auth-base64'),
    ('PLAIN', (b'* \r\n',), 'auth-base64'),
    # base64 that is not canonical
    *[('PLAIN', (text + b'\r\n',), 'auth-base64') for text in (
        b'AHQAcA=', b'AHQAcA', b'AHQAcA===', b'AHQAcB==', b'AHQA cA==', b' AHQAcA==', b'AHQAcA==\r', b'AHQA\ncA==',
        b'AHQAcA==AHQAcA==', b'AHQAcA-_', b'=', b'====', b'A', b'\xff\xff\xff\xff', b'MAIL FROM:<a@b>')],
    ('PLAIN AHQAcB==', (), 'auth-base64'),
    ('PLAIN \u0100HQAcA==', (), 'auth-base64'),
    # PLAIN that has not two NULs, or empty parts
    ('PLAIN =', (), 'auth-malformed'),
    ('PLAIN', (b'\r\n',), 'auth-malformed'),
    *[('PLAIN ' + b64(text), (), 'auth-malformed') for text in (
        b'tim', b'\0tim', b'\0tim\0', b'\0\0pw', b'\0\0', b'\0tim\0pw\0', b'\0tim\0p\0w', b'\0\xff\0pw',
        b'\0\xed\xa0\x80\0pw', b'\0a\r\nb\0pw', b'\0a\x1b\0pw', b'\0a\x7f\0pw',
        '\0a\x85\0pw'.encode(), '\0a\u2028\0pw'.encode(),
        b'\0' + b'l' * (FIELD_LIMIT + 1) + b'\0pw', b'\0tim\0' + b'p' * (FIELD_LIMIT + 1))],
    # to act as somebody else
    ('PLAIN ' + b64(b'root\0tim\0pw'), (), 'auth-identity'),
    ('PLAIN ' + b64(b'Tim\0tim\0pw'), (), 'auth-identity'),
    # LOGIN
    ('LOGIN =', (), 'auth-malformed'),
    ('LOGIN', (b'\r\n',), 'auth-malformed'),
    ('LOGIN', (b'dGlt\r\n', b'\r\n'), 'auth-malformed'),
    ('LOGIN', (b'dGlt\r\n', b'cAB3\r\n'), 'auth-malformed'),
    # CRAM-MD5
    ('CRAM-MD5 dGlt', (), 'auth-initial'),
    ('CRAM-MD5 =', (), 'auth-initial'),
    *[('CRAM-MD5', (b64(text).encode() + b'\r\n',), 'auth-malformed') for text in (
        b'', b'tim', DIGEST.encode(), b' ' + DIGEST.encode(), b'tim ' + DIGEST.upper().encode(), TIM + b'0', TIM[:-1],
        TIM + b' ', TIM + b'\n', b'a\0b ' + DIGEST.encode())],
    # lines
    ('PLAIN', (b'AHQAcA==\n',), 'bad-line-end'),
    ('PLAIN', (b'AHQAcA==',), 'bad-line-end'),
    ('PLAIN', (b'A' * (LINE_LIMIT - 1) + b'\r\n',), 'auth-too-long'),
], ids=ascii)
def test_refusals(argument: str, lines: tuple[bytes, ...], refusal: str) -> None:
    answers = dialogue(argument, *lines)
    assert answers[-1] == refusal and refusal in REPLIES and REPLIES[refusal][0] in (500, 501, 504, 535)
    assert not any(isinstance(answer, (Password, ChallengeResponse)) for answer in answers)


def test_a_line_of_full_length_is_read() -> None:
    assert dialogue('PLAIN', b'A' * (LINE_LIMIT - 4) + b'\r\n')[-1] == 'auth-malformed'


def test_only_what_is_offered() -> None:
    assert dialogue('CRAM-MD5', mechanisms=('PLAIN', 'LOGIN')) == ['auth-mechanism']
    assert dialogue('LOGIN', mechanisms=('PLAIN',)) == ['auth-mechanism']


def test_nothing_is_left_of_an_exchange_that_was_refused() -> None:
    exchange = Exchange(MECHANISMS, lambda: CHALLENGE)
    assert exchange.start('LOGIN dGlt') == PASSWORD
    with pytest.raises(AuthRefused):
        exchange.feed(b'*\r\n')
    with pytest.raises(AssertionError):
        exchange.feed(b'cHc=\r\n')


def test_cram_md5_example() -> None:
    assert cram_md5(b'tanstaaftanstaaf', CHALLENGE) == DIGEST
    response = ChallengeResponse('CRAM-MD5', 'tim', CHALLENGE, DIGEST)
    assert response.matches(b'tanstaaftanstaaf')
    assert not response.matches(b'tanstaaftanstaag') and not response.matches(b'')


def test_each_challenge_is_asked_for_anew() -> None:
    challenges = iter([b'<1@x>', b'<2@x>'])
    answers = {Exchange(MECHANISMS, lambda: next(challenges)).start('CRAM-MD5') for _ in range(2)}
    assert answers == {b'334 PDFAeD4=\r\n', b'334 PDJAeD4=\r\n'}


@pytest.mark.parametrize(('secret', 'right'), [(b'pw', True), (b'pW', False), (b'', False), (b'pw\0', False)])
def test_passwords_are_compared_as_a_whole(secret: bytes, right: bool) -> None:
    assert Password('PLAIN', 'tim', b'pw').matches(secret) is right


def test_no_secret_is_shown() -> None:
    shown = repr([Password('PLAIN', 'tim', b'Xecret'), ChallengeResponse('CRAM-MD5', 'tim', CHALLENGE, DIGEST)])
    assert 'tim' in shown and 'Xecret' not in shown and DIGEST not in shown
    with pytest.raises(AuthRefused) as caught:
        Exchange(MECHANISMS, lambda: CHALLENGE).start('PLAIN ' + b64(b'root\0tim\0Xecret'))
    assert str(caught.value) == 'auth-identity'


def test_nothing_but_refusals_comes_out_of_noise() -> None:
    dice = random.Random(4954)
    pieces = [b'*', b'=', b'\0', b'AHQAcA==', b'dGlt', b'\xff', b' ', b'\r', b'\n', b'PLAIN', b'LOGIN', b'CRAM-MD5']
    for _ in range(3000):
        argument = b''.join(dice.choices(pieces, k=dice.randrange(6))).decode('latin-1')
        lines = [b''.join(dice.choices(pieces, k=dice.randrange(5))) + b'\r\n' for _ in range(2)]
        exchange, step = Exchange(MECHANISMS, lambda: CHALLENGE), b''
        try:
            found = exchange.start(argument)
            while isinstance(found, bytes) and lines:
                assert found[:4] == b'334 '
                found = exchange.feed(lines.pop())
        except AuthRefused as refusal:
            step = refusal.name.encode()
        assert step == b'' or step.decode() in REPLIES


# the client's side

@pytest.mark.parametrize('mechanism', MECHANISMS)
@pytest.mark.parametrize(('login', 'password'), [('tim', 'tanstaaftanstaaf'), ('josé', 'pä ß'), ('a b', '*')])
def test_our_client_with_our_server(mechanism: str, login: str, password: str) -> None:
    exchange = Exchange(MECHANISMS, lambda: CHALLENGE)
    (_, first), *rest = client_steps(mechanism, Login(login, password))
    line = first('')
    assert line[:5] == b'AUTH ' and line[-2:] == b'\r\n'
    found = exchange.start(line[5:-2].decode())
    for _, step in rest:
        assert isinstance(found, bytes)
        found = exchange.feed(step(found[4:-2].decode()))
    assert isinstance(found, (Password, ChallengeResponse))
    assert found.login == login and found.matches(password.encode()) and not found.matches(b'another')


@pytest.mark.parametrize(('mechanism', 'states'), [
    ('PLAIN', ['authplain']),
    ('LOGIN', ['authlogin', 'authusername', 'authpassword']),
    ('CRAM-MD5', ['authcram', 'authresponse']),
])
def test_states_of_the_client(mechanism: str, states: list[str]) -> None:
    assert [state for state, _ in client_steps(mechanism, Login('l', 'p'))] == states


ALL = ['CRAM-MD5', 'LOGIN', 'PLAIN']


@pytest.mark.parametrize(('offered', 'encrypted', 'address', 'chosen'), [
    (ALL,                  True,  '8.8.8.8',    'PLAIN'),
    (['login', 'xoauth2'], True,  '8.8.8.8',    'LOGIN'),
    (['cram-md5'],         True,  '8.8.8.8',    'CRAM-MD5'),
    (['GSSAPI'],           True,  '127.0.0.1',  None),
    (ALL,                  False, '127.0.0.1',  'CRAM-MD5'),
    (['login', 'xoauth2'], False, '10.1.2.3',   'LOGIN'),
    (['PLAIN'],            False, '::1',        'PLAIN'),
    (['PLAIN'],            False, 'fe80::1%eth0', 'PLAIN'),
    (['PLAIN'],            False, 'fd00::1',    'PLAIN'),
    (ALL,                  False, '8.8.8.8',    'CRAM-MD5'),
    (['LOGIN', 'PLAIN'],   False, '8.8.8.8',    None),
    (['PLAIN'],            False, '2600::1',    None),
    ([],                   False, '127.0.0.1',  None),
])
def test_choice_of_the_client(offered: list[str], encrypted: bool, address: str, chosen: str | None) -> None:
    assert choose_mechanism(offered, encrypted, address) == chosen


def test_a_login_is_shown_without_its_password() -> None:
    assert repr(Login('l', 'secret')) == "Login(name='l')"


@pytest.mark.parametrize('challenge', ['no!', 'PDE', 'é'])
def test_a_challenge_that_is_none(challenge: str) -> None:
    step: Callable[[str], bytes] = client_steps('CRAM-MD5', Login('l', 'p'))[1][1]
    with pytest.raises(BadReply, match='not base64'):
        step(challenge)
