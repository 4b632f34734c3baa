"""Settings: where they come from, which one wins, what is wrong with them, and how they are shown.

    built-in default  <  file  <  environment  <  command line

`load` takes the texts of all sources and returns a complete `Settings` with every problem found, not only the first.
An error stops the program from starting, a warning is shown at start. Which settings exist stands in settings_table,
how a value is read in settings_kinds. Everything here is pure except `read_file`; nothing logs or exits.

The file, which may be MailerQ's own, holds one `key: value` per line. `#` begins a comment at the start of a line or
after white space, so a `#` inside a password, address or template stays; a value that must have white space and then
`#` can be given in the environment or on the command line, where nothing is cut. There is no quoting. A key without
value means its default, except that a path, list of files, list of ports or optional queue may be switched off that
way (`keeps_empty` in settings_kinds); an empty `smtp-range` is the default too, never everybody. A key given twice:
the last one wins, with a warning that names both lines.

The environment: MQLITE_ or MAILERQ_ and the key in capitals with `_` for `-`; MQLITE_ wins. An unknown variable is only
a warning, because container platforms put variables such as MQLITE_SERVICE_HOST there on their own.

Limits: a file of at most 1 MiB, in UTF-8, without control characters.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from textwrap import shorten, wrap
from types import MappingProxyType
from typing import NamedTuple, cast

from mqlite.errors import ConfigError
from mqlite.settings_kinds import FLAG, SECRET, Network, split_urls
from mqlite.settings_table import (
    ALIASES,
    GROUPS,
    HONOURED,
    IGNORED,
    IGNORED_FAMILIES,
    NOT_YET,
    SETTINGS,
    Setting,
)

FILE_LIMIT = 1 << 20
PREFIXES = ("MAILERQ_", "MQLITE_")  # the later one wins
ERROR, WARNING = "error", "warning"

_BY_NAME = {setting.name: setting for setting in SETTINGS}
_COMMENT = re.compile(r"(?:^|(?<=\s))#.*")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_USERINFO = re.compile(r"^([a-z0-9]+://)(?:([^:@]*):)?(.*)@", re.IGNORECASE)


class Origin(NamedTuple):
    """Where a value was written: a file and its line, `environment NAME` or `command line` (line 0)."""

    source: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


class Problem(NamedTuple):
    """One thing that is wrong, for the person who can change it. `severity` is ERROR or WARNING."""

    severity: str
    source: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{Origin(self.source, self.line)}: {self.severity}: {self.text}"


class Entry(NamedTuple):
    """A key and its text as somebody wrote them, not yet looked up or read."""

    key: str
    text: str
    origin: Origin


class Chosen(NamedTuple):
    """The value that won for one setting, the text that it was read from, and where that stood."""

    value: object
    text: str
    origin: Origin


DEFAULT = Origin("default")


class Settings:
    """Every setting with its value, not to be changed. The accessors raise TypeError when asked for another kind of
    value than the setting has and KeyError for a name that is not in the table: both are mistakes of the caller."""

    def __init__(self, chosen: Mapping[str, Chosen]) -> None:
        self._chosen = MappingProxyType(dict(chosen))

    def text(self, name: str) -> str:
        """A text, path, queue, host, single address or URL; '' when there is none."""
        return cast(str, self._value(name, "text"))

    def flag(self, name: str) -> bool:
        return cast(bool, self._value(name, "flag"))

    def integer(self, name: str) -> int:
        """A number, a port, or a size in bytes."""
        return cast(int, self._value(name, "integer"))

    def seconds(self, name: str) -> float:
        return cast(float, self._value(name, "seconds"))

    def intervals(self, name: str) -> tuple[int, ...]:
        """Seconds each, at least one of them, none zero."""
        return cast("tuple[int, ...]", self._value(name, "intervals"))

    def ports(self, name: str) -> tuple[int, ...]:
        """Ranges are spelt out; () when there are none."""
        return cast("tuple[int, ...]", self._value(name, "ports"))

    def networks(self, name: str) -> tuple[Network, ...]:
        return cast("tuple[Network, ...]", self._value(name, "networks"))

    def items(self, name: str) -> tuple[str, ...]:
        """A list of texts, addresses (in canonical notation) or URLs; () when there are none."""
        return cast("tuple[str, ...]", self._value(name, "items"))

    def origin(self, name: str) -> Origin:
        """Where the value comes from; DEFAULT when nobody set it."""
        return self._chosen[name].origin

    def shown(self, name: str) -> str:
        """The value as text, with secrets masked."""
        return masked(_BY_NAME[name], self._chosen[name].text)

    def _value(self, name: str, accessor: str) -> object:
        kind = _BY_NAME[name].kind
        if kind.accessor != accessor:
            raise TypeError(f"{name} is a {kind.label}: ask for it with .{kind.accessor}()")
        return self._chosen[name].value


def read_file(path: str) -> str:
    """The text of a configuration file. Raises ConfigError. The only function here that touches the system."""
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; name the right one with --config FILE") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: this is a directory, --config needs a file") from None
    except PermissionError:
        raise ConfigError(f"{path}: not readable for this user; change its owner or mode") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if len(data) > FILE_LIMIT:
        raise ConfigError(f"{path}: larger than {FILE_LIMIT} bytes, this is no configuration file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise ConfigError(f"{path}:{line}: byte {byte:#04x} is not UTF-8; save the file as UTF-8") from None


def load(
    text: str = "",
    source: str = "",
    environment: Mapping[str, str] | None = None,
    arguments: Iterable[tuple[str, str]] = (),
) -> tuple[Settings, list[Problem]]:
    """All sources put together: the `text` of the file named `source`, the variables, the arguments as (key, value).

    The settings are complete whatever happened: a value that cannot be read is left out, as if it had not been given.
    """
    problems: list[Problem] = []
    given: dict[str, Chosen] = {}
    for entries in (file_entries(text, source, problems), environment_entries(environment or {}), _argued(arguments)):
        for entry in entries:
            _take(entry, given, problems)
    settings = Settings({setting.name: _winner(setting, given) for setting in SETTINGS})
    problems += _not_yet(given)
    return settings, problems


def is_setting(key: str) -> bool:
    """Whether a setting has this name, one that is ignored included."""
    return ALIASES.get(key, key) in _BY_NAME or key.startswith(IGNORED_FAMILIES)


def advice(key: str, others: Iterable[str] = ()) -> str:
    """For whoever wrote a name that does not exist: the nearest one, of the settings and the `others`."""
    near = difflib.get_close_matches(key.lower().replace("_", "-"), [*others, *_BY_NAME, *ALIASES], n=1)
    return f"did you mean {near[0]}?" if near else "--help lists them all"


def is_flag(key: str) -> bool:
    """Whether the setting is a boolean, which may stand on the command line without a value."""
    setting = _BY_NAME.get(ALIASES.get(key, key))
    return setting is not None and setting.kind is FLAG


def has_errors(problems: Iterable[Problem]) -> bool:
    """Whether the program must not start."""
    return any(problem.severity == ERROR for problem in problems)


def file_entries(text: str, source: str, problems: list[Problem]) -> Iterator[Entry]:
    """The lines that hold something. Complains about lines without a colon and about keys given twice."""
    seen: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        content = _COMMENT.sub("", line).strip()
        key, colon, value = (part.strip() for part in content.partition(":"))
        if colon and re.fullmatch(r"[^\s=]+", key):
            name = ALIASES.get(key, key)
            if name in seen:
                again = f"{key}: given again, line {number} replaces line {seen[name]}"
                problems.append(Problem(WARNING, source, number, again))
            seen[name] = number
            yield Entry(key, value, Origin(source, number))
        elif content:
            # Only the first word is shown: the rest may be a password whose colon was forgotten.
            word = re.split(r"[\s=]", key)[0][:40]
            problems.append(Problem(ERROR, source, number, f"{word!r}: not a setting, which is written `key: value`"))


def environment_entries(environment: Mapping[str, str]) -> Iterator[Entry]:
    """The variables with our prefixes, the stronger ones later: MAILERQ_ < MQLITE_, an alias < the proper name."""
    for prefix in PREFIXES:
        named = [(v[len(prefix):].lower().replace("_", "-"), v) for v in sorted(environment) if v.startswith(prefix)]
        for key, variable in sorted(named, key=lambda pair: pair[0] not in ALIASES):
            yield Entry(key, environment[variable].strip(), Origin(f"environment {variable}"))


def _argued(arguments: Iterable[tuple[str, str]]) -> Iterator[Entry]:
    for key, value in arguments:
        yield Entry(key, value.strip(), Origin("command line"))


def _take(entry: Entry, given: dict[str, Chosen], problems: list[Problem]) -> None:
    """Looks the key up, reads the text, and lets it replace what an earlier source said."""
    setting = _BY_NAME.get(ALIASES.get(entry.key, entry.key))
    if setting is None:
        if not entry.key.startswith(IGNORED_FAMILIES):
            problems.append(_unknown(entry))
    elif not entry.text and not setting.kind.keeps_empty:
        given.pop(setting.name, None)
    else:
        try:
            given[setting.name] = Chosen(_read(setting, entry.text), entry.text, entry.origin)
        except ValueError as error:
            # A value that only MailerQ understands must not keep its file from loading while it has no effect here.
            severity = ERROR if setting.status == HONOURED else WARNING
            problems.append(Problem(severity, *entry.origin, f"{setting.name}: {error}"))


def _read(setting: Setting, text: str) -> object:
    """The value of `text` for this setting. Raises ValueError."""
    if _CONTROL.search(text):
        raise ValueError("holds a control character")
    return setting.kind.value(text)


def _unknown(entry: Entry) -> Problem:
    key = entry.key[:40]
    if entry.origin.source.startswith("environment"):
        return Problem(WARNING, *entry.origin, f"no setting has this name, it is left alone; {advice(key)}")
    return Problem(ERROR, *entry.origin, f"{key!r}: there is no such setting; {advice(key)}")


def _winner(setting: Setting, given: Mapping[str, Chosen]) -> Chosen:
    """What was given, or else the default, which may be the value of another setting."""
    if setting.name in given:
        return given[setting.name]
    if setting.default.startswith("="):
        other = _winner(_BY_NAME[setting.default[1:]], given)
        return Chosen(other.value, other.text, DEFAULT)
    return Chosen(setting.kind.value(setting.default), setting.default, DEFAULT)


def _not_yet(given: Mapping[str, Chosen]) -> Iterator[Problem]:
    """A warning for each setting that somebody relies on and that has no effect."""
    for name, chosen in given.items():
        setting = _BY_NAME[name]
        others = {other: value for other, value in given.items() if other != name}
        if setting.status == NOT_YET and chosen.value != _winner(setting, others).value:
            yield Problem(WARNING, *chosen.origin, f"{name}: not honoured yet by this version: {setting.help}")


def masked(setting: Setting, text: str) -> str:
    """`text` fit to be shown: no password, and not those inside URLs.

    Rather too much is masked than too little: up to the last @ of an address, and all of `hardcoded://`.
    """
    if setting.kind is SECRET:
        return "***" if text else ""
    if text.lower().startswith("hardcoded://"):
        return "hardcoded://***"
    return ",".join(_masked_url(url) for url in split_urls(text)) if "://" in text else text


def _masked_url(url: str) -> str:
    return _USERINFO.sub(lambda found: f"{found[1]}{found[2] + ':' if found[2] else ''}***@", url)


def check_config(settings: Settings, problems: Iterable[Problem]) -> str:
    """What `--check-config` prints: each setting with its value and origin, in the file's syntax, then the problems."""
    lines: list[str] = []
    for title, rows in GROUPS:
        lines += ["", f"# {title}"]
        for setting in rows:
            value = settings.shown(setting.name)
            lines.append(f"{setting.name + ':':<24} {value:<32} # {settings.origin(setting.name)}")
    lines += ["", *(str(problem) for problem in problems)]
    return "\n".join(lines[1:]).rstrip() + "\n"


def help_text() -> str:
    """The settings part of `--help`: what is honoured, with kind and default, then the names of the rest."""
    lines = ["Settings, in the file as `key: value` or here as --key=value (default in brackets):"]
    for title, rows in GROUPS:
        honoured = [setting for setting in rows if setting.status == HONOURED]
        if honoured:
            lines += ["", f"{title}:"]
            lines += [f"  --{s.name:<20} {s.help} ({s.kind.label}) [{_default(s) or 'none'}]" for s in honoured]
    for status, title in ((NOT_YET, "Read, but not honoured yet:"), (IGNORED, "Ignored:")):
        lines += ["", title, *wrap(", ".join(_names(status)), 110, initial_indent="  ", subsequent_indent="  ",
                                   break_on_hyphens=False)]
    return "\n".join(lines) + "\n"


def readme_table() -> str:
    """The same in Markdown, for README.md."""
    lines = ["| setting | kind | default | meaning |", "|---|---|---|---|"]
    for setting in SETTINGS:
        if setting.status == HONOURED:
            kind = setting.kind.label.replace("|", "\\|")
            lines.append(f"| `{setting.name}` | {kind} | {_default(setting)} | {setting.help} |")
    for status, title in ((NOT_YET, "Read, but not honoured yet"), (IGNORED, "Ignored")):
        lines += ["", f"{title}: {', '.join(f'`{name}`' for name in _names(status))}."]
    return "\n".join(lines) + "\n"


def _default(setting: Setting) -> str:
    """As it is shown in a list: long ones, of formats, are cut short."""
    if setting.default.startswith("="):
        return f"as {setting.default[1:]}"
    return shorten(setting.default, 40, placeholder="...")


def _names(status: str) -> list[str]:
    names = [setting.name for setting in SETTINGS if setting.status == status]
    return names + [f"{family}*" for family in IGNORED_FAMILIES] if status == IGNORED else names
