"""What the settings of both directions of SMTP mean to a worker."""

from __future__ import annotations

import pytest

from mqlite.delivery.route import Route
from mqlite.errors import ConfigError
from mqlite.receiving import make_limits
from mqlite.sending import fixed_server, loose_addresses, notices
from mqlite.settings import Settings, load
from mqlite.smtp.dsn import NOTHING, Request
from mqlite.smtp.sasl_client import Login


def settings(text: str) -> Settings:
    found, problems = load(text)
    assert problems == []
    return found


@pytest.mark.parametrize(('text', 'request_'), [
    ('', NOTHING), ('dsn-notify: failure, delay', Request(('FAILURE', 'DELAY'))),
    ('dsn-ret: hdrs', Request((), 'HDRS')),
    ('dsn-notify: NEVER\ndsn-ret: FULL', Request(('NEVER',), 'FULL'))])
def test_notices(text: str, request_: Request) -> None:
    assert notices(settings(text)) == request_


def test_never_and_sometimes() -> None:
    with pytest.raises(ConfigError, match='^dsn-notify: NOTIFY=NEVER, or some of'):
        notices(settings('dsn-notify: NEVER,DELAY'))


@pytest.mark.parametrize(('text', 'loose'), [
    ('', []), ('validate-envelope: loose', ['envelope']), ('validate-recipient: loose', ['recipient']),
    ('validate-envelope: strict\nsmtp-validate-address: loose', [])])
def test_loose_addresses(text: str, loose: list[str]) -> None:
    assert loose_addresses(settings(text)) == loose


def test_limits() -> None:
    assert (make_limits(settings('')).dsn, make_limits(settings('')).loose) == (False, False)
    limits = make_limits(settings('dsn-advertise: 1\nsmtp-validate-address: loose\nsmtp-max-recipients: 7'))
    assert (limits.dsn, limits.loose, limits.recipients) == (True, True, 7)


@pytest.mark.parametrize(('text', 'route'), [
    ('', None), ('smarthost: 0.0.0.0', None), ('smarthost-username: us', None),
    ('smarthost: relay.example', Route('relay.example', 25, True)),
    ('smarthost: relay.example\nsmarthost-port: 587\nsmarthost-username: us\nsmarthost-password: a b:c',
     Route('relay.example', 587, True, Login('us', 'a b:c'))),
])
def test_the_smarthost(text: str, route: Route | None) -> None:
    assert fixed_server(settings(text), 'smarthost', 'smarthost') == route
    text = text.replace('smarthost-', 'smtp-sink-').replace('smarthost:', 'smtp-sink-address:')
    assert fixed_server(settings(text), 'smtp-sink-address', 'smtp-sink') == route
