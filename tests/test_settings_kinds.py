"""The kinds of value: what each accepts, what it makes of it, what it refuses."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from mqlite import settings_kinds as kinds

SCHEMES = kinds.url("sqlite", "amqp")
CLUSTER = kinds.urls("amqp", "sqlite")
MOOD = kinds.one_of("strict", "loose")
EVENTS = kinds.some_of("NEVER", "FAILURE")

GOOD: list[tuple[kinds.Kind, str, object]] = [
    (kinds.TEXT,       "",                     ""),
    (kinds.TEXT,       "a b",                  "a b"),
    (kinds.NAME,       "mta-1.b_c",            "mta-1.b_c"),
    (kinds.QUEUE,      "",                     ""),
    (kinds.QUEUE,      "q" * 255,              "q" * 255),
    (kinds.HOST,       "mx_1.example.com.",    "mx_1.example.com."),
    (kinds.HOST,       "2001:DB8::1",          "2001:db8::1"),
    (kinds.HOST,       "0.0.0.0",              ""),
    (kinds.HOST,       "::",                   ""),
    (kinds.ADDRESS,    "0.0.0.0",              "0.0.0.0"),
    (SCHEMES,          "SQLite:///a/b.db",     "sqlite:///a/b.db"),
    (MOOD,             "Loose",                "loose"),
    (kinds.INTEGER,    "0",                    0),
    (kinds.INTEGER,    "007",                  7),
    (kinds.COUNT,      "1",                    1),
    (kinds.SIZE,       "5000",                 5000),
    (kinds.SIZE,       "64KB",                 65536),
    (kinds.SIZE,       "64 kb",                65536),
    (kinds.SIZE,       "1M",                   1048576),
    (kinds.SIZE,       "2GB",                  2147483648),
    (kinds.PORT,       "65535",                65535),
    (kinds.SECONDS,    "0",                    0.0),
    (kinds.SECONDS,    "2.5",                  2.5),
    (kinds.DURATION,   "0.1",                  0.1),
    (kinds.INTERVALS,  "60, 120;240",          (60, 120, 240)),
    (kinds.PORTS,      "",                     ()),
    (kinds.PORTS,      "25,2525,1024-1026",    (25, 2525, 1024, 1025, 1026)),
    (kinds.PORTS,      "26-27;25 - 26",        (26, 27, 25)),
    (kinds.NETWORKS,   "192.168.0.7/16",       (ip_network("192.168.0.0/16"),)),
    (kinds.NETWORKS,   "127.0.0.1;::1,",       (ip_network("127.0.0.1/32"), ip_network("::1/128"))),
    (kinds.ADDRESSES,  "192.0.2.1; ::0001",    ("192.0.2.1", "::1")),
    (kinds.LIST,       "stdout, /a b/c.log",   ("stdout", "/a b/c.log")),
    (EVENTS,           "failure,never",        ("FAILURE", "NEVER")),
    (CLUSTER,          "amqp://a:b@h1;h2/v",   ("amqp://a:b@h1;h2/v",)),
    (CLUSTER,          "amqp://h1/v, amqp://h2/v", ("amqp://h1/v", "amqp://h2/v")),
    (CLUSTER,          "sqlite:///a,b.db",     ("sqlite:///a,b.db",)),
] + [(kinds.FLAG, text, True) for text in ("true", "1", "yes", "on", "TRUE", "On")] \
  + [(kinds.FLAG, text, False) for text in ("false", "0", "no", "off", "False", "NO")]

BAD = [
    (kinds.NAME,       ["", "a b", "é", "n" * 65]),
    (kinds.QUEUE,      ["q" * 256, "é" * 128]),
    (kinds.HOST,       ["a b", "-x", "http://x", "h" * 256, "exämple.com"]),
    (kinds.ADDRESS,    ["localhost", "1.2.3", "1.2.3.4/32", "1.2.3.4,1.2.3.5"]),
    (SCHEMES,          ["/a/b.db", "sqlite://", "mysql://h/d", "sqlite:/a"]),
    (MOOD,             ["lax", "strict,loose"]),
    (kinds.FLAG,       ["", "2", "y", "ja", "truefalse"]),
    (kinds.INTEGER,    ["", "-1", "1.0", "1e3", "0x10", "1_000", "٣", "1" * 13]),
    (kinds.COUNT,      ["0", "00"]),
    (kinds.SIZE,       ["", "0", "0MB", "-1", "1.5MB", "10XB", "MB", "10B", "1TB"]),
    (kinds.PORT,       ["0", "65536", "25,26", "smtp"]),
    (kinds.SECONDS,    ["-1", "1h", "1.", ".5", "inf", "nan", "1" * 10]),
    (kinds.DURATION,   ["0", "0.0"]),
    (kinds.INTERVALS,  ["", ",", "60,0", "60,,x", "1.5"]),
    (kinds.PORTS,      ["0", "65536", "30-20", "1-", "-1", "1-2-3", "25 26", ","]),
    (kinds.NETWORKS,   ["all", "10.0.0.0/33", "10.0.0", "10.0.0.0-10.0.0.9", ",", ";;"]),
    (kinds.ADDRESSES,  ["10.0.0.0/8", "10.0.0.1,x"]),
    (EVENTS,           ["always", "never failure"]),
    (CLUSTER,          ["localhost", "amqp://h1,http://h2"]),
]


@pytest.mark.parametrize(("kind", "text", "value"), GOOD, ids=lambda part: getattr(part, "label", None))
def test_a_value_is_read(kind: kinds.Kind, text: str, value: object) -> None:
    assert kind.value(text) == value
    assert type(kind.value(text)) is type(value)


@pytest.mark.parametrize(
    ("kind", "text"), [(k, t) for k, texts in BAD for t in texts],
    ids=lambda part: getattr(part, "label", None),
)
def test_a_value_is_refused(kind: kinds.Kind, text: str) -> None:
    with pytest.raises(ValueError) as caught:
        kind.value(text)
    assert len(str(caught.value)) < 120
