"""What a reply or a failure means: delivered, try again, or give up. The only file that decides it. Pure.

A 2yz to the final dot is delivered. A 5yz is final, but to a login or to STARTTLS, where it says nothing about the
message (Postfix: smtp_sasl_auth_soft_bounce). Everything else - 4yz, a time-out, a lost connection, an answer that is
not SMTP - is tried again: it says nothing lasting about the recipient. The results and their states are those of the
result queues.

Limits: what a server said is kept up to TEXT_LIMIT characters, since every attempt adds it to the document.
"""

from __future__ import annotations

from dataclasses import replace

from mqlite.delivery.forced import ForcedError
from mqlite.message.result import Connected, Result
from mqlite.smtp.reply import ClientFailure, Reply

_NOT_FINAL = ('auth', 'starttls')  # beginnings of states
TEXT_LIMIT = 4096  # characters of a description: eight lines as long as RFC 5321 4.5.3.1.5 allows


def delivered(reply: Reply, dsn: bool, connected: Connected) -> Result:
    """The server took the message."""
    return Result('message', 'accepted', code=reply.code, status=reply.status, description=reply.text[:TEXT_LIMIT],
                  dsn=dsn, connected=connected)


def failed(failure: ClientFailure, connected: Connected | None) -> Result:
    """A step of the conversation went wrong."""
    reply = failure.reply
    if reply is None:
        return Result(failure.state, failure.kind, description=failure.text[:TEXT_LIMIT], connected=connected)
    permanent = failure.kind == 'error' and reply.code // 100 == 5 and not failure.state.startswith(_NOT_FINAL)
    return Result(failure.state, failure.kind, permanent, reply.code, reply.status, reply.text[:TEXT_LIMIT],
                  connected=connected)


def unresolved(permanent: bool, reason: str, status: str = '') -> Result:
    """The name system gave no address: for good, or only now."""
    return Result('dns', 'error' if permanent else 'timeout', permanent, status=status, description=reason)


def loops_back(domain: str, server: str) -> Result:
    """The server is this daemon, and nobody is nearer to the recipient (RFC 3463: 5.4.6 routing loop detected)."""
    return Result('dns', 'error', True, status='5.4.6', description=f'mail for {domain} loops back to us: {server} is '
                                                                    f'this server')


def not_connected(server: str, timed_out: bool, reason: str) -> Result:
    """No connection came about."""
    return Result('connect', 'timeout' if timed_out else 'error', description=f'{server}: {reason}')


def left_alone(result: Result, until: str) -> Result:
    """The destination could not be reached a moment ago, and is not tried again before that moment."""
    return replace(result, description=f'{result.description} (the last attempt; the next one is after {until})')


def cannot_bind(reason: str, permanent: bool) -> Result:
    """No local address that was asked for can be used: it is not one of ours, or has no free port now."""
    return Result('bind', 'error', permanent, description=reason)


def no_usable_address() -> Result:
    """The message names addresses to send from, or a pool of them, and none of them is one."""
    return cannot_bind('none of the addresses in "ips" or "pool" is one of this host', permanent=True)


def on_pause(what: str) -> Result:
    """The operator does not want it to go now; no message gets this as its result."""
    return Result('process', 'error', description=f'on pause: {what}')


def held_back() -> Result:
    """The limits of its servers' addresses leave no room for a connection; no message gets this as its result."""
    return Result('process', 'error', description='no address of the servers may have another connection now')


def suppressed(code: int, status: str, description: str) -> Result:
    """The operator wants nothing to be sent to this recipient."""
    return Result('suppression', 'error', True, code, status, description[:TEXT_LIMIT])


def forced(error: ForcedError) -> Result:
    """The operator wants it to fail."""
    return Result('process', 'error', error.code // 100 != 4, error.code, error.status,
                  error.description[:TEXT_LIMIT])


def no_local_address(target: str) -> Result:
    """None of the addresses to send from has the family of the server's."""
    return Result('process', 'error', permanent=True, description=f'no local address suits {target}')


def internal_fault() -> Result:
    """A mistake of ours, which says nothing about the message."""
    return Result('process', 'error', description='internal error: the log of mqlite says more')


def invalid(reason: str) -> Result:
    """The document cannot be sent as it is."""
    return Result('process', 'invalid', permanent=True, description=reason)


def not_converted(state: str, reason: str) -> Result:
    """The document asks for a change of its message that cannot be made."""
    return Result(state, 'error', permanent=True, description=reason)


def no_data(reason: str) -> Result:
    """There is nothing to send."""
    return Result('storage', 'error', permanent=True, description=reason)


def condemned() -> Result:
    """It has ended too many processes of ours to be tried once more."""
    return Result('process', 'error', permanent=True,
                  description='a plugin has crashed with this message again and again: the log of mqlite says which')


def expired() -> Result:
    """It has no time left, or no attempt."""
    return Result('process', 'timeout', permanent=True,
                  description='the message was not delivered in the time or the attempts that it had')
