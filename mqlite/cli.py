"""The command line: what is asked for, with which settings, and the exit status.

    mqlite.pyz --config [FILE]                             the daemon
    mqlite.pyz --check-config | --list-ips | --version | --help
    mqlite.pyz queue list | publish QUEUE | get QUEUE [--count N] [--keep] | purge QUEUE
    mqlite.pyz sink [--port N]
    mqlite.pyz [--envelope A] [--ignore-dot] RECIPIENT... | --extract-recipients      (sendmail)

Every setting is an option too: `--key=value` or `--key value`. An option that is in neither table is reported like an
unknown setting, with the nearest name. Exit status: 0 done, 1 could not be done, 2 wrong usage; sendmail mode has its
own, those of sysexits.h.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Callable

from mqlite import __version__
from mqlite.app import Daemon
from mqlite.errors import ConfigError
from mqlite.host import local_addresses
from mqlite.log import Log
from mqlite.queue_command import QueueCommand
from mqlite.sendmail import EX_USAGE, sendmail, status_of
from mqlite.settings import Problem, Settings, check_config, has_errors, help_text, is_flag, load, read_file
from mqlite.sink import run_sink

CONFIG_FILES = ('mqlite.conf', '/etc/mqlite/config.txt', '/etc/mailerq/config.txt')

#   option                value
OPTIONS = {
    'config':             'optional',
    'config-file':        'optional',
    'check-config':       'none',
    'version':            'none',
    'list-ips':           'none',
    'help':               'none',
    'envelope':           'needed',
    'ignore-dot':         'none',
    'extract-recipients': 'none',
    'count':              'needed',
    'keep':               'none',
    'port':               'needed',
}


class UsageError(ConfigError):
    """The command line makes no sense; exit status 2."""


@dataclass
class Arguments:
    """The command line, taken apart. An option without value has ''."""

    words: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)
    settings: list[tuple[str, str]] = field(default_factory=list)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; the exit status."""
    given = sys.argv[1:] if argv is None else list(argv)
    submits = False
    try:
        arguments = take_apart(given)
        submits = _is_sendmail(arguments)
        return _dispatch(arguments, given)
    except UsageError as error:
        print(f'mqlite: {error}', file=sys.stderr)
        return EX_USAGE if submits else 2
    except (ConfigError, OSError) as error:
        print(f'mqlite: {error}', file=sys.stderr)
        return status_of(error) if submits else 1


def take_apart(given: Sequence[str]) -> Arguments:
    """Sort the words into options of ours, settings, and the rest. `--` ends the options."""
    arguments, rest = Arguments(), list(given)
    while rest:
        word = rest.pop(0)
        if word == '--':
            arguments.words += rest
            break
        if not word.startswith('--'):
            arguments.words.append(word)
            continue
        name, equals, value = word[2:].partition('=')
        if name in OPTIONS:
            if not equals and OPTIONS[name] != 'none' and rest and not rest[0].startswith('-'):
                value = rest.pop(0)
            elif not equals and OPTIONS[name] == 'needed':
                raise UsageError(f'--{name} needs a value')
            arguments.options[name] = value
        else:
            if not equals:
                value = 'true' if is_flag(name) else rest.pop(0) if rest else ''
            arguments.settings.append((name, value))
    return arguments


def _dispatch(arguments: Arguments, given: Sequence[str]) -> int:
    options = arguments.options
    if 'help' in options:
        print((__doc__ or '').split('\n\n')[1] + '\n\n' + help_text(), end='')
        return 0
    if 'version' in options:
        print(f'mqlite {__version__}')
        return 0
    if 'list-ips' in options:
        print('\n'.join(local_addresses()))
        return 0
    if arguments.words[:1] == ['sink']:
        return run_sink(_number(options.get('port', '2526'), 'port'))
    settings, problems = _settings(arguments)
    if 'check-config' in options:
        print(check_config(settings, problems), end='')
        return 1 if has_errors(problems) else 0
    _refuse_errors(problems)
    if arguments.words[:1] == ['queue']:
        return _queue(arguments, settings)
    if _is_sendmail(arguments):
        return sendmail(settings, given, arguments.words, options.get('envelope'), 'ignore-dot' in options,
                        'extract-recipients' in options)
    if 'config' in options or 'config-file' in options:
        return _daemon(settings, problems)
    raise UsageError('say what to do: --config starts the daemon, --help lists everything')


def _is_sendmail(arguments: Arguments) -> bool:
    return 'extract-recipients' in arguments.options or bool(
        arguments.words and arguments.words[0] not in ('queue', 'sink'))


def _daemon(settings: Settings, problems: Sequence[Problem]) -> int:
    log = Log(settings.items('application-log'))
    for problem in problems:
        log.warning(str(problem))
    try:
        return Daemon(settings, log).run()
    except ConfigError as error:
        log.critical(str(error))
        return 1


def _queue(arguments: Arguments, settings: Settings) -> int:
    command = QueueCommand(settings)
    words, options = arguments.words[1:], arguments.options
    #   name       words  what runs
    commands: dict[str, tuple[int, Callable[..., int]]] = {
        'list':    (0, command.list),
        'publish': (1, command.publish),
        'get':     (1, lambda queue: command.get(queue, _count(options), 'keep' in options)),
        'purge':   (1, command.purge),
    }
    if not words or words[0] not in commands or len(words) - 1 != commands[words[0]][0]:
        raise UsageError('usage: queue list | publish QUEUE | get QUEUE [--count N] [--keep] | purge QUEUE')
    return commands[words[0]][1](*words[1:])


def _settings(arguments: Arguments) -> tuple[Settings, list[Problem]]:
    path = arguments.options.get('config') or arguments.options.get('config-file') or _find_config()
    settings, problems = load(read_file(path) if path else '', path, os.environ, arguments.settings)
    if not path and 'config' in arguments.options:
        problems.append(Problem('warning', 'command line', 0,
                                f'no configuration file (looked for {", ".join(CONFIG_FILES)}): the defaults hold'))
    return settings, problems


def _find_config() -> str:
    return next((path for path in CONFIG_FILES if os.path.exists(path)), '')


def _refuse_errors(problems: Sequence[Problem]) -> None:
    if has_errors(problems):
        lines = '\n'.join(f'  {problem}' for problem in problems)
        raise ConfigError(f'the settings have errors:\n{lines}')


def _count(options: dict[str, str]) -> int | None:
    return _number(options['count'], 'count') if 'count' in options else None


def _number(text: str, name: str) -> int:
    if not text.isdigit() or len(text) > 9 or int(text) == 0:
        raise UsageError(f'--{name} needs a number')
    return int(text)
