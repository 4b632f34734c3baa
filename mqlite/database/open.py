"""Which database the settings name."""

from __future__ import annotations

from mqlite.database.file import DatabaseFile
from mqlite.database.live import Database
from mqlite.errors import ConfigError, MqliteError
from mqlite.host import local_addresses
from mqlite.log import Log
from mqlite.loop.reactor import Reactor
from mqlite.settings import Settings

SQLITE = 'sqlite://'


def prepare(settings: Settings, log: Log) -> None:
    """Make, mend and check the database, as the settings say: once, before anybody opens it. MqliteError.

    `paused` puts everything on pause. The table `ips` is for other programs: it gets the addresses of this host.
    """
    file = _file(settings)
    if file is None:
        return
    purge = settings.flag('purge-database')
    file.open(settings.flag('database-validate'), settings.flag('repair-database'), purge)
    if purge:
        log.warning(f'purge-database: all tables of {file.path} were made anew and are empty; '
                    f'take the setting out before the next start')
    if settings.flag('paused'):
        file.add('paused', dict.fromkeys(('localip', 'pool', 'target', 'tag'), ''))
    try:
        file.keep_only('ips', 'ip', local_addresses())
    except MqliteError as error:
        log.warning(f'the table ips is not up to date: {error}')  # nothing of ours depends on it
    file.close()


def open_database(reactor: Reactor, settings: Settings, log: Log) -> Database | None:
    """The database, read; None when there is none."""
    file = open_file(settings)
    return None if file is None else Database(reactor, file, settings.seconds('database-ttl'), log)


def open_file(settings: Settings) -> DatabaseFile | None:
    """The file that `database-address` names, as it is; None when it names none."""
    file = _file(settings)
    if file is not None:
        file.open(settings.flag('database-validate'))
    return file


def _file(settings: Settings) -> DatabaseFile | None:
    address = settings.text('database-address')
    if not address:
        return None
    path = address[len(SQLITE):]
    if not address.startswith(SQLITE) or not path.strip('/'):
        raise ConfigError('database-address: sqlite:// and the path of a file, such as sqlite:///var/lib/mqlite.db; '
                          'MySQL and PostgreSQL would need libraries that Python does not bring')
    return DatabaseFile(path)
