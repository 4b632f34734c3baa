"""Settings: the table, the file's syntax, which source wins, what is complained about, what is shown."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from mqlite.errors import ConfigError
from mqlite.settings import (
    DEFAULT,
    ERROR,
    FILE_LIMIT,
    WARNING,
    Problem,
    check_config,
    has_errors,
    help_text,
    load,
    masked,
    read_file,
    readme_table,
)
from mqlite.settings_table import ALIASES, HONOURED, IGNORED, NOT_YET, SETTINGS, Setting

# The table

def test_the_table_names_each_setting_once_and_its_aliases_lead_somewhere() -> None:
    names = [setting.name for setting in SETTINGS]
    assert len(names) == len(set(names))
    assert set(ALIASES.values()) <= set(names)
    assert not set(ALIASES) & set(names)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_each_row_is_complete_and_its_default_can_be_read(setting: Setting) -> None:
    assert setting.status in (HONOURED, NOT_YET, IGNORED)
    assert setting.help and not setting.help.endswith(".")
    settings, problems = load()
    assert problems == []
    getattr(settings, setting.kind.accessor)(setting.name)
    assert settings.origin(setting.name) is DEFAULT


def test_defaults_that_matter() -> None:
    settings, _ = load()
    assert settings.items("queue-address") == ("sqlite://mqlite.db",)
    assert settings.networks("smtp-range") == (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    assert settings.ports("smtp-port") == (25,)
    assert settings.integer("smtp-maxsize") == 100 * 1024 * 1024
    assert settings.intervals("retry-interval") == (600, 600, 1800, 1800, 3600, 3600, 7200)
    assert settings.text("rabbitmq-inbox") == "outbox"
    assert settings.flag("rabbitmq-persistent") is True


# What is not honoured

def test_a_value_equal_to_the_default_is_no_reason_to_warn() -> None:
    assert load("rabbitmq-qos: 1000\nspool-remove: yes\nwww-port: 8485\nsmtp-auth:\nloopback: 0\n")[1] == []


def test_a_bad_value_of_a_setting_that_has_no_effect_is_only_a_warning() -> None:
    settings, problems = load("smtp-check: spf,virus\n", "f")
    assert problems == [Problem(WARNING, "f", 1, "smtp-check: 'virus' is not spf or dkim or dmarc or spam")]
    assert settings.items("smtp-check") == ()


def test_ignored_settings_pass_without_a_word_whatever_they_hold() -> None:
    assert load("license: x\nheartbeat: maybe\nheartbeat-address: y\ndisable-crash-anything: z\n")[1] == []


# The accessors

def test_a_setting_is_asked_for_by_its_kind() -> None:
    settings, _ = load()
    with pytest.raises(TypeError, match=r"smtp-maxsize .* \.integer\(\)"):
        settings.text("smtp-maxsize")
    with pytest.raises(KeyError):
        settings.text("no-such-setting")


# The file's syntax

SYNTAX = [
    ("server-id: a",                     "a"),
    ("  server-id  :  a  ",              "a"),
    ("server-id:a\r\n",                  "a"),
    ("\n\n# note\n   # note\nserver-id: a", "a"),
    ("server-id: a # note",              "a"),
    ("server-id: a\t#note",              "a"),
    ("#server-id: a",                    "1"),
    ("server-id: # note",                "1"),
    ("server-id:",                       "1"),
    ("\tserver-id:\t\ta",                "a"),
]


@pytest.mark.parametrize(("text", "value"), SYNTAX)
def test_a_line_is_read(text: str, value: str) -> None:
    settings, problems = load(text, "f")
    assert (settings.text("server-id"), problems) == (value, [])


def test_a_hash_or_colon_inside_a_value_stays() -> None:
    text = "smarthost-password: a#b:c##\nsend-log-format: {$date}#{$x}: http://h/#y\nwww-url: http://h/#x # cut\n"
    settings, _ = load(text)
    assert settings.text("smarthost-password") == "a#b:c##"
    assert settings.text("send-log-format") == "{$date}#{$x}: http://h/#y"
    assert settings.text("www-url") == "http://h/#x"


def test_only_the_file_has_comments() -> None:
    settings, _ = load("", "", {"MQLITE_SMARTHOST_PASSWORD": "a #b"}, [("smtp-sink-password", "# c")])
    assert settings.text("smarthost-password") == "a #b"
    assert settings.text("smtp-sink-password") == "# c"


EMPTY = [
    ("rabbitmq-inbox", ""), ("rabbitmq-results", ""), ("rabbitmq-outbox", "outbox"), ("application-log", ()),
    ("smtp-port", ()), ("www-port", ()), ("smtp-timeout", 300.0), ("smtp-extract", True), ("lock", ""),
    ("smtp-range", (ip_network("127.0.0.0/8"), ip_network("::1/128"))), ("queue-address", ("sqlite://mqlite.db",)),
    ("storage-policy", "all"), ("server-id", "1"), ("smarthost", ""),
]


@pytest.mark.parametrize(("name", "value"), EMPTY)
def test_a_key_without_value(name: str, value: object) -> None:
    kind = next(setting.kind for setting in SETTINGS if setting.name == name)
    settings, problems = load(f"{name}:\n")
    assert getattr(settings, kind.accessor)(name) == value
    assert not has_errors(problems)


def test_a_key_given_twice() -> None:
    settings, problems = load("smtp-port: 1\nserver-id: x\nsmtp-port: 2\n", "f")
    assert settings.ports("smtp-port") == (2,)
    assert problems == [Problem(WARNING, "f", 3, "smtp-port: given again, line 3 replaces line 1")]


def test_an_alias_is_the_same_key() -> None:
    settings, problems = load("queue-address: sqlite:///a\nrabbitmq-address: sqlite:///b\n", "f")
    assert settings.items("queue-address") == ("sqlite:///b",)
    assert [problem.line for problem in problems] == [2]


# Complaints

COMPLAINTS = [
    ("smtp-prot: 1",           ERROR, "'smtp-prot': there is no such setting; did you mean smtp-port?"),
    ("SMTP_PORT: 1",           ERROR, "'SMTP_PORT': there is no such setting; did you mean smtp-port?"),
    ("rabitmq-adress: x",      ERROR, "'rabitmq-adress': there is no such setting; did you mean rabbitmq-address?"),
    ("zzz: 1",                 ERROR, "'zzz': there is no such setting; --help lists them all"),
    ("smtp-port 25",           ERROR, "'smtp-port': not a setting, which is written `key: value`"),
    ("smtp-port=25",           ERROR, "'smtp-port': not a setting, which is written `key: value`"),
    ("smtp-secure port: 25",   ERROR, "'smtp-secure': not a setting, which is written `key: value`"),
    (": 25",                   ERROR, "'': not a setting, which is written `key: value`"),
    ("smtp-port: 2x",          ERROR, "smtp-port: '2x' is no port or range of ports, such as 25 or 1024-1026"),
    ("dns-min-ttl: 0",         ERROR, "dns-min-ttl: 0 seconds is too short"),
    ("user: a\0b",             ERROR, "user: holds a control character"),
    ("queue-address: secret",  ERROR, "queue-address: is no address that begins with sqlite:// or amqp:// or amqps://"),
    ("daemon: yes",          WARNING, "daemon: not honoured yet by this version: run in the background"),
]


@pytest.mark.parametrize(("line", "severity", "text"), COMPLAINTS)
def test_a_complaint_says_where_and_what(line: str, severity: str, text: str) -> None:
    _, problems = load(f"# first\n{line}\n", "mqlite.conf")
    assert problems == [Problem(severity, "mqlite.conf", 2, text)]
    assert str(problems[0]) == f"mqlite.conf:2: {severity}: {text}"
    assert has_errors(problems) is (severity == ERROR)


def test_all_problems_are_found_at_once() -> None:
    _, problems = load("a: 1\nsmtp-port: x\nb\n", "f", {"MQLITE_SMTP_IP": "x"}, [("c", "1"), ("smtp-timeout", "x")])
    assert [(problem.source, problem.line) for problem in problems] == [
        ("f", 1), ("f", 2), ("f", 3), ("environment MQLITE_SMTP_IP", 0), ("command line", 0), ("command line", 0),
    ]


@pytest.mark.parametrize("line", [
    "smarthost-password hunter2", "smarthost-password=hunter2", "smarthost-password hunter2:x",
    "smart-password: hunter2", "queue-address: joe:hunter2@h", "www-url: ftp://a:hunter2@h",
])
def test_no_complaint_repeats_a_password(line: str) -> None:
    settings, problems = load(line, "f")
    assert problems
    assert "hunter2" not in check_config(settings, problems)


# Precedence

NAMES = ("file", "MAILERQ_", "MQLITE_", "command line")


@pytest.mark.parametrize("given", range(16))
def test_the_strongest_source_wins(given: int) -> None:
    """All sixteen combinations of the four sources above the default."""
    present = [name for bit, name in enumerate(NAMES) if given >> bit & 1]
    environment = {f"{prefix}SERVER_ID": prefix for prefix in ("MQLITE_", "MAILERQ_") if prefix in present}
    settings, problems = load(
        "server-id: file" if "file" in present else "", "f", environment,
        [("server-id", "command"), ("server-id", "last")] if "command line" in present else [],
    )
    expected = present[-1] if present else "1"
    assert settings.text("server-id") == {"command line": "last"}.get(expected, expected)
    assert str(settings.origin("server-id")) == {
        "1": "default", "file": "f:1", "MQLITE_": "environment MQLITE_SERVER_ID",
        "MAILERQ_": "environment MAILERQ_SERVER_ID", "command line": "command line",
    }[expected]
    assert problems == []


def test_an_empty_variable_restores_the_default() -> None:
    assert load("server-id: x", "f", {"MQLITE_SERVER_ID": ""})[0].text("server-id") == "1"


def test_the_proper_name_of_a_variable_beats_its_alias() -> None:
    both = {"MQLITE_QUEUE_ADDRESS": "sqlite:///a", "MQLITE_RABBITMQ_ADDRESS": "sqlite:///b"}
    assert load(environment=both)[0].items("queue-address") == ("sqlite:///a",)


def test_an_unknown_variable_is_a_warning_and_others_are_not_looked_at() -> None:
    _, problems = load(environment={"MQLITE_SMTP_PROT": "secret", "HOME": "/", "mqlite_x": "1", "XMQLITE_Y": "1"})
    text = "no setting has this name, it is left alone; did you mean smtp-port?"
    assert problems == [Problem(WARNING, "environment MQLITE_SMTP_PROT", 0, text)]


def test_a_default_follows_the_setting_that_it_names() -> None:
    assert load("rabbitmq-outbox: out1")[0].text("rabbitmq-inbox") == "out1"
    assert load("rabbitmq-outbox: out1\nrabbitmq-inbox: in")[0].text("rabbitmq-inbox") == "in"
    assert load("proxy-server: http://p:1\ndownload-proxy: http://p:1")[1][1:] == []


# What is shown

def row(name: str) -> Setting:
    return next(setting for setting in SETTINGS if setting.name == name)


MASKED = [
    ("smarthost-password", "hunter2",                        "***"),
    ("smarthost-password", "",                               ""),
    ("license",            "/etc/license.txt",               "***"),
    ("queue-address",      "sqlite:///a/b.db",               "sqlite:///a/b.db"),
    ("queue-address",      "amqp://joe:hunter2@h/v",         "amqp://joe:***@h/v"),
    ("queue-address",      "amqp://joe:hu/nt@er2@h/v",       "amqp://joe:***@h/v"),
    ("queue-address",      "amqp://a:p1@h1/v, amqps://b:p2@h2/v", "amqp://a:***@h1/v,amqps://b:***@h2/v"),
    ("storage-address",    "couchbase://hunter2@h1;h2/b",    "couchbase://***@h1;h2/b"),
    ("storage-address",    "couchbase://hunter2@h1:1/b@c",   "couchbase://***@c"),
    ("smtp-auth",          "hardcoded://a:p1,b:p2,x://p3",   "hardcoded://***"),
    ("www-auth",           "radius://id:hunter2@h:1812",     "radius://id:***@h:1812"),
    ("smtp-auth",          "users://a,b*",                   "users://a,b*"),
    ("server-id",          "a@b",                            "a@b"),
]


@pytest.mark.parametrize(("name", "text", "shown"), MASKED)
def test_secrets_are_masked(name: str, text: str, shown: str) -> None:
    assert masked(row(name), text) == shown


@pytest.mark.parametrize("text", [help_text(), readme_table()], ids=["help", "readme"])
def test_help_and_readme_name_every_setting_once(text: str) -> None:
    words = text.replace("`", " ").replace(",", " ").replace(".", " ").replace("--", " ").replace("|", " ").split()
    for setting in SETTINGS:
        assert setting.name in words
    assert "heartbeat*" in words and "disable-crash-*" in words
    assert text.index("smtp-maxsize") < text.index("not honoured yet") < text.index("smtp-check")


# Reading the file

def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mqlite.conf"
    path.write_bytes("\ufeffuser: é\r\n".encode())
    assert load(read_file(str(path)))[0].text("user") == "é"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"user: a\nuser: \xff\n", r"mqlite\.conf:2: byte 0xff is not UTF-8"),
        (b"#" * (FILE_LIMIT + 1), r"mqlite\.conf: larger than"),
        (None, r"mqlite\.conf: there is no such file"),
    ],
    ids=["bad bytes", "too large", "missing"],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    path = tmp_path / "mqlite.conf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=complaint):
        read_file(str(path))


def test_a_directory_or_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this is a directory"):
        read_file(str(tmp_path))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_file("a\0b")


def test_a_file_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:  # the tests may run as root, who may read everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ConfigError, match="mqlite.conf: not readable for this user"):
        read_file("mqlite.conf")
