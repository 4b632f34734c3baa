"""The receiving side, made from the settings: the server, where its clients log in, and the spool directory."""

from __future__ import annotations

from typing import Callable

from mqlite.auth.desk import LoginDesk
from mqlite.auth.open import open_authenticator
from mqlite.errors import ConfigError
from mqlite.log import Log
from mqlite.loop.reactor import Reactor
from mqlite.parts import make_resolver
from mqlite.plugin.host import PluginHost
from mqlite.queues.contract import Store
from mqlite.receive import Receiver
from mqlite.refused import RefusedMail
from mqlite.settings import DEFAULT, Settings
from mqlite.smtp.admission import AdmissionConfig
from mqlite.smtp.certificates import Certificates
from mqlite.smtp.clients import ClientLimits, ClientRule
from mqlite.smtp.server import ServerConfig, SmtpServer
from mqlite.smtp.session import Limits
from mqlite.smtp.shares import Share
from mqlite.spool.directory import SpoolConfig, SpoolDirectory
from mqlite.spool.watch import SpoolWatch, WatchConfig


def make_desk(reactor: Reactor, settings: Settings, hostname: str, host: PluginHost | None,
              log: Log) -> LoginDesk | None:
    """Where clients log in; None when they cannot. ConfigError.

    With smtp-auth, who is outside of an smtp-range that somebody has set cannot, as for MailerQ.
    """
    setting, judged = settings.text('smtp-auth'), host is not None and host.judges_logins
    if not setting and not judged:
        return None
    try:
        store = open_authenticator(reactor, make_resolver(reactor, settings), setting) if setting else None
    except ConfigError as error:
        raise ConfigError(f'smtp-auth: {error}') from None
    limited = setting and settings.origin('smtp-range') != DEFAULT
    return LoginDesk(reactor, hostname, store, judged, log.warning, settings.flag('smtp-auth-clear'),
                     settings.networks('smtp-range') if limited else None)


def make_server(reactor: Reactor, settings: Settings, store: Store, hostname: str,
                host: PluginHost | None, log: Log, is_local: Callable[[str], bool] | None,
                share: Share, certificates: Certificates | None, desk: LoginDesk | None,
                receiver: Receiver) -> SmtpServer:
    """The receiving side."""
    queue = settings.text('rabbitmq-refused')
    refused = RefusedMail(reactor, store, queue, hostname, log.warning) if queue else None
    return SmtpServer(reactor, ServerConfig(
        hostname, make_limits(settings), settings.seconds('smtp-timeout'), make_admission(settings, share), log.warning,
        is_local, settings.integer('smtp-min-rate'), settings.text('smtp-bare-line-ends') == 'normalise'),
        receiver.receive,
        host.ask_for if host is not None and host.asks_incoming else None,
        refused.keep if refused is not None else None,
        certificates.context if certificates is not None else None, desk)


def make_limits(settings: Settings) -> Limits:
    """What one session may ask of us."""
    return Limits(
        size=settings.integer('smtp-maxsize'), recipients=settings.integer('smtp-max-recipients'),
        errors=settings.integer('smtp-max-errors'), commands=settings.integer('smtp-max-commands'),
        header=settings.integer('smtp-max-header'), hops=settings.integer('smtp-max-hops'),
        dsn=settings.flag('dsn-advertise'), loose=settings.text('smtp-validate-address') == 'loose',
        must_log_in=bool(settings.text('smtp-auth')))


def make_admission(settings: Settings, share: Share) -> AdmissionConfig:
    """Who is let in."""
    of_client = ClientLimits(*(settings.integer(f'smtp-client-{name}') for name in (
        'connections', 'connection-rate', 'message-rate', 'recipient-rate')))
    in_range, is_proxy = (ClientRule(settings.networks(name)) for name in ('smtp-range', 'smtp-proxy'))
    return AdmissionConfig(share, in_range, is_proxy, of_client,
                           settings.seconds('smtp-session-timeout'), settings.seconds('smtp-greeting-delay'))


def make_spool(reactor: Reactor, settings: Settings, store: Store, receiver: Receiver,
               is_local: Callable[[str], bool] | None, log: Log) -> SpoolWatch | None:
    """The spool directory; None where there is none. ConfigError."""
    path = settings.text('spool-directory')
    if not path:
        return None
    directory = SpoolDirectory(SpoolConfig(
        path, settings.text('spool-fail-directory'), settings.seconds('spool-delay'), settings.flag('spool-remove'),
        settings.integer('smtp-maxsize')))
    config = WatchConfig(settings.flag('spool-extract'), settings.integer('spool-open-files'),
                         settings.integer('spool-threads'))
    return SpoolWatch(reactor, directory, receiver, store, config,
                      is_local or (lambda _address: False), log)
