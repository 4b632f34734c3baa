"""The command line: what is asked for, with which settings, and the exit status.

    mqlite.pyz --config [FILE]                             the daemon
    mqlite.pyz --check-config | --list-ips | --version | --help
    mqlite.pyz queue list | publish QUEUE | get QUEUE [--count N] [--keep] | purge QUEUE
    mqlite.pyz local list | add ADDRESS [TYPE] | remove ADDRESS [TYPE]
    mqlite.pyz pause | resume [domain D | ip A] [mta A | pool P] [tag T]; pause list
    mqlite.pyz suppress list | add ADDRESS|DOMAIN [CODE [STATUS [TEXT]]] | remove ADDRESS|DOMAIN
    mqlite.pyz requeue ADDRESS | DOMAIN | all
    mqlite.pyz why ADDRESS | DOMAIN | IDENTIFIER [--json]
    mqlite.pyz sink [--port N]
    mqlite.pyz [--envelope A] [--ignore-dot] RECIPIENT... | --extract-recipients      (sendmail)

Every setting is an option too: `--key=value` or `--key value`. An option that is in neither table, or that belongs to
another command, is wrong usage: nothing is done, and the nearest name is suggested. Exit status: 0 done, 1 could not be
done, 2 wrong usage; sendmail mode has its own, those of sysexits.h.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Callable

from mqlite import __version__, local_command, operate_command, queue_command
from mqlite.daemon import Daemon
from mqlite.errors import ConfigError, MqliteError, UsageError
from mqlite.host import local_addresses
from mqlite.log import Log
from mqlite.sendmail import EX_USAGE, sendmail, status_of
from mqlite.settings import (
    Problem,
    Settings,
    advice,
    check_config,
    has_errors,
    help_text,
    is_flag,
    is_setting,
    load,
    read_file,
)
from mqlite.sink import run_sink
from mqlite.why_command import why

CONFIG_FILES = ('mqlite.conf', '/etc/mqlite/config.txt', '/etc/mailerq/config.txt')

#   option                value       command that it belongs to, '' for all
OPTIONS = {
    'config':             ('optional', ''),
    'config-file':        ('optional', ''),
    'check-config':       ('none',     ''),
    'version':            ('none',     ''),
    'list-ips':           ('none',     ''),
    'help':               ('none',     ''),
    'envelope':           ('needed',   'sendmail'),
    'ignore-dot':         ('none',     'sendmail'),
    'extract-recipients': ('none',     'sendmail'),
    'count':              ('needed',   'queue get'),
    'keep':               ('none',     'queue get'),
    'port':               ('needed',   'sink'),
    'json':               ('none',     'why'),
}


@dataclass
class Arguments:
    """The command line, taken apart. An option without value has ''."""

    words: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)
    settings: list[tuple[str, str]] = field(default_factory=list)

    @property
    def command(self) -> str:
        """sink, local and such, sendmail, `queue` and its next word, or '' for the daemon."""
        if self.words[:1] == ['queue']:
            return ' '.join(self.words[:2])
        if self.words and self.words[0] in ('sink', 'local', 'why', *operate_command.COMMANDS):
            return self.words[0]
        submits = self.words or any(OPTIONS[name][1] == 'sendmail' for name in self.options)
        return 'sendmail' if submits else ''


def main(argv: Sequence[str] | None = None) -> int:
    """Run; the exit status."""
    _open_standard_files()
    arguments = Arguments()
    try:
        take_apart(sys.argv[1:] if argv is None else argv, arguments)
        status = _dispatch(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # whoever read our output has gone; Python must not try to write the rest of it when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130  # as a shell counts SIGINT
    except UsageError as error:
        print(f'mqlite: {error}', file=sys.stderr)
        return EX_USAGE if arguments.command == 'sendmail' else 2
    except (MqliteError, OSError) as error:
        print(f'mqlite: {error}', file=sys.stderr)
        return status_of(error) if arguments.command == 'sendmail' else 1


def take_apart(given: Sequence[str], arguments: Arguments) -> None:
    """Sort the words into options of ours, settings, and the rest. `--` ends the options. UsageError."""
    rest = list(given)
    while rest:
        word = rest.pop(0)
        if word == '--':
            arguments.words += rest
            break
        if not word.startswith('-') or word == '-':
            arguments.words.append(word)
            continue
        name, equals, value = word[2:].partition('=')
        if name in OPTIONS and word.startswith('--'):
            arguments.options[name] = _value(word, OPTIONS[name][0], rest)
        elif is_setting(name) and word.startswith('--'):
            value = 'true' if is_flag(name) and not equals else _value(word, 'needed', rest)
            arguments.settings.append((name, value))
        else:
            raise UsageError(f'{word.partition("=")[0]}: there is no such option; {advice(name, OPTIONS)}')
    for name in arguments.options:
        owner = OPTIONS[name][1]
        if owner not in ('', arguments.command):
            raise UsageError(f'--{name} belongs to {owner} and means nothing here; --help lists everything')


def _value(word: str, need: str, rest: list[str]) -> str:
    """The value of an option: behind its `=`, else the next word, which is then taken off the rest."""
    name, equals, value = word.partition('=')
    if equals and need == 'none':
        raise UsageError(f'{name} takes no value')
    if equals or need == 'none':
        return value
    if rest and not rest[0].startswith('-'):
        return rest.pop(0)
    if need == 'needed':
        raise UsageError(f'{name} needs a value')
    return ''


def _open_standard_files() -> None:
    """Put the null device where a standard file is closed: the next file opened would get its number, and our output.

    Python has None for such a file; it checks the lowest number first, and so do we.
    """
    for name, mode in (('stdin', 'r'), ('stdout', 'w'), ('stderr', 'w')):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - open as long as we run


def _dispatch(arguments: Arguments) -> int:
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
    if arguments.command == 'sink':
        if len(arguments.words) > 1:
            raise UsageError('usage: sink [--port N]')
        return run_sink(_number(options.get('port', '2526'), 'port', 65535))
    settings, problems = _settings(arguments)
    if 'check-config' in options:
        print(check_config(settings, problems), end='')
        return 1 if has_errors(problems) else 0
    _refuse_errors(problems)
    if arguments.words[:1] == ['queue']:
        return _queue(arguments, settings)
    if arguments.command == 'local':
        return _local(arguments, settings)
    if arguments.command == 'why':
        return why(settings, arguments.words[1:], 'json' in options)
    if arguments.command in operate_command.COMMANDS:
        return operate_command.COMMANDS[arguments.command](settings, arguments.words[1:])
    if arguments.command == 'sendmail':
        if not arguments.words and 'extract-recipients' not in options:
            raise UsageError('name the recipients, or use --extract-recipients')
        return sendmail(settings, arguments.words, options)
    if 'config' in options or 'config-file' in options:
        return _daemon(settings, problems)
    raise UsageError('say what to do: --config starts the daemon, --help lists everything')


def _daemon(settings: Settings, problems: Sequence[Problem]) -> int:
    log = Log(settings.items('application-log'), settings.text('error-log'))
    for problem in problems:
        log.warning(str(problem))
    try:
        return Daemon(settings, log).run()
    except (MqliteError, OSError) as error:
        log.critical(str(error))
        if not {'stdout', 'stderr'} & set(settings.items('application-log')):
            raise  # whoever started us is to read it too
        return 1


def _queue(arguments: Arguments, settings: Settings) -> int:
    words, options = arguments.words[1:], arguments.options
    #   name       words  what runs
    commands: dict[str, tuple[int, Callable[..., int]]] = {
        'list':    (0, queue_command.list_queues),
        'publish': (1, queue_command.publish),
        'get':     (1, partial(queue_command.get, count=_count(options), keep='keep' in options)),
        'purge':   (1, queue_command.purge),
    }
    if not words or words[0] not in commands or len(words) - 1 != commands[words[0]][0]:
        raise UsageError('usage: queue list | publish QUEUE | get QUEUE [--count N] [--keep] | purge QUEUE')
    return commands[words[0]][1](settings, *words[1:])


def _local(arguments: Arguments, settings: Settings) -> int:
    words = arguments.words[1:]
    #   name      words that may follow  what runs
    commands: dict[str, tuple[range, Callable[..., int]]] = {
        'list':   (range(1),            local_command.list_addresses),
        'add':    (range(1, 3),         local_command.add),
        'remove': (range(1, 3),         local_command.remove),
    }
    if not words or words[0] not in commands or len(words) - 1 not in commands[words[0]][0]:
        raise UsageError('usage: local list | add ADDRESS [TYPE] | remove ADDRESS [TYPE]')
    return commands[words[0]][1](settings, *words[1:])


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
    return _number(options['count'], 'count', 10 ** 9) if 'count' in options else None


def _number(text: str, name: str, largest: int) -> int:
    if not re.fullmatch('[0-9]{1,10}', text) or not 0 < int(text) <= largest:
        raise UsageError(f'--{name} needs a number from 1 to {largest}')
    return int(text)
