"""The sending side, made from the settings: the engine, and all that it needs."""

from __future__ import annotations

from typing import Callable

from mqlite.database.live import Database
from mqlite.database.overrides import follow_overrides
from mqlite.database.signing_keys import SigningKeys
from mqlite.delivery.attempt import Dialler
from mqlite.delivery.controls import Controls
from mqlite.delivery.engine import Engine, EngineConfig
from mqlite.delivery.notify import NotifyConfig
from mqlite.delivery.pauses import Pause, Pauses
from mqlite.delivery.protection import Protection
from mqlite.delivery.response_rules import ResponseRules
from mqlite.delivery.retry import RetryPolicy
from mqlite.delivery.route import Route, RouteConfig
from mqlite.delivery.signer import MailSigner
from mqlite.errors import ConfigError
from mqlite.host import host_name
from mqlite.log import Log
from mqlite.loop.reactor import Reactor
from mqlite.loop.tls import client_context
from mqlite.mail_log import open_mail_log
from mqlite.parts import make_resolver
from mqlite.plugin.host import PluginHost
from mqlite.plugin.outgoing import OutgoingHooks
from mqlite.queues.contract import Store
from mqlite.settings import Settings
from mqlite.smtp.clients import ClientRule
from mqlite.smtp.dsn import Request, make_request
from mqlite.smtp.grammar import SyntaxFault
from mqlite.smtp.sasl_client import Login
from mqlite.smtp.shares import Share


def make_engine(reactor: Reactor, settings: Settings, log: Log, store: Store, database: Database | None,
                host: PluginHost | None, share: Share, workers: int, is_condemned: Callable[[bytes], bool],
                is_own: Callable[[str, int], bool]) -> Engine:
    """ConfigError. `workers`: that share the limits; `is_condemned`: whether plugins crash with a document; `is_own`:
    whether the daemon listens there."""
    hostname, asks = host_name(settings.text('hostname')), host is not None and host.asks_outgoing
    resolver, controls = make_resolver(reactor, settings), Controls(database)
    if database is not None:
        follow_overrides(database, resolver)
    elif settings.flag('paused'):
        controls.pauses = Pauses([Pause()])
    if settings.flag('paused'):
        log.warning(f'paused: nothing is sent until {"resume" if database else "a start without this setting"}')
    queues = {kind: settings.text(f'rabbitmq-{kind}') for kind in ('results', 'success', 'failure', 'retry')}
    config = EngineConfig(
        settings.text('rabbitmq-outbox'), queues,
        RetryPolicy(settings.intervals('retry-interval'), settings.integer('max-attempts'),
                    settings.seconds('max-delivertime')),
        make_routes(settings), share, host is not None and host.loads_mime, loose_addresses(settings),
        NotifyConfig(hostname, settings.text('rabbitmq-dsn'), notices(settings)), settings.integer('rabbitmq-qos'),
        controls, workers, None if database is None else ResponseRules(database))
    dialler = Dialler(reactor, resolver, hostname,
                      Protection(reactor.clock, client_context(), client_context(verify=True)),
                      host.companion if host is not None and asks else None,
                      OutgoingHooks(host, resolver, config.route.sources) if host is not None else None,
                      MailSigner(reactor.clock, resolver, hostname,
                                 None if database is None else SigningKeys(database)), controls, is_own)
    return Engine(reactor, store, dialler, config, open_mail_log(settings, 'send', log.warning),
                  is_condemned if asks else None)


def make_routes(settings: Settings) -> RouteConfig:
    mappable, unmappable = (ClientRule(settings.networks(f'smtp-{name}-ips')) for name in ('mappable', 'unmappable'))
    return RouteConfig(fixed_server(settings, 'smtp-sink-address', 'smtp-sink'),
                       fixed_server(settings, 'smarthost', 'smarthost'), settings.items('smtp-default-ips'),
                       (lambda address: mappable(address) and not unmappable(address))
                       if settings.networks('smtp-mappable-ips') else None)


def loose_addresses(settings: Settings) -> list[str]:
    """Those of a document that are not held to RFC 5321."""
    return [name for name in ('envelope', 'recipient') if settings.text(f'validate-{name}') == 'loose']


def notices(settings: Settings) -> Request:
    """What senders are to be told of where their message does not say."""
    try:
        return make_request(','.join(settings.items('dsn-notify')), settings.text('dsn-ret'), '', '')
    except SyntaxFault as fault:
        raise ConfigError(f'dsn-notify: {fault}') from None


def fixed_server(settings: Settings, host: str, prefix: str) -> Route | None:
    """The server that these settings name for all mail."""
    name, login = settings.text(host), settings.text(f'{prefix}-username')
    if not name:
        return None
    return Route(name, settings.integer(f'{prefix}-port'), True,
                 Login(login, settings.text(f'{prefix}-password')) if login else None)
