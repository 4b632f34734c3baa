"""JSON objects of libfastjson and json-c: C edits them with the library's functions, and only its changes come back."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mqlite.message.document import DEPTH_LIMIT, Document
from mqlite.plugin import host_library, json_object
from mqlite.plugin.host_library import HostLibraryError
from mqlite.plugin.json_object import REMOVED, JsonFault, JsonLibrary, JsonObject
from tests.support.c_plugin import build_plugin

# The same source for both: J() is the prefix of the library's names, -DHEADER and -DJ(name) are given on the command
# line. json-c's object_object_add returns int, libfastjson's nothing, which nobody here looks at.
PLUGIN = r"""
#include HEADER
#include <math.h>
#include <string.h>

typedef struct J(object) object;

static object *text(const char *value) { return J(object_new_string)(value); }
static object *in(object *o, const char *name)
{
    object *found = NULL;
    J(object_object_get_ex)(o, name, &found);
    return found;
}
static void add(object *o, const char *name, object *value) { J(object_object_add)(o, name, value); }

void nothing(object *o) { (void)o; }
void add_text(object *o) { add(o, "campaign", text("spring")); }
void add_null(object *o) { add(o, "campaign", NULL); }
void add_nested(object *o)
{
    object *list = J(object_new_array)();
    J(object_array_add)(list, J(object_new_int64)(1));
    J(object_array_add)(list, J(object_new_boolean)(1));
    J(object_array_add)(list, J(object_new_double)(0.5));
    add(o, "campaign", J(object_new_object)());
    add(in(o, "campaign"), "list", list);
}
void change_text(object *o) { add(o, "envelope", text("bounce@example.org")); }
void same_again(object *o) { add(o, "envelope", text("a@example.org")); }
void change_nested(object *o) { add(in(o, "nested"), "inner", J(object_new_int)(2)); }
void one_to_true(object *o) { add(o, "one", J(object_new_boolean)(1)); }
void one_to_double(object *o) { add(o, "one", J(object_new_double)(1.0)); }
void remove_one(object *o) { J(object_object_del)(o, "one"); }
void remove_rate(object *o) { J(object_object_del)(o, "rate"); }
void remove_nested(object *o) { J(object_object_del)(in(o, "nested"), "inner"); }
void set_bytes(object *o) { add(o, "mime", J(object_new_string_len)("a\0b\xff\xc3\xa9", 6)); }
void mime_with_header(object *o)
{
    static char made[100];
    object *mime = in(o, "mime");
    int size = J(object_get_string_len)(mime);
    memcpy(made, "X: y\r\n", 6);
    memcpy(made + 6, J(object_get_string)(mime), size);
    add(o, "mime", J(object_new_string_len)(made, 6 + size));
}
void set_nan(object *o) { add(o, "rate", J(object_new_double)(NAN)); }
void set_infinite(object *o) { add(o, "rate", J(object_new_double)(-INFINITY)); }
void set_broken(object *o) { add(o, "rate", J(object_new_double_s)(1.0, "1,0")); }
void set_deep(object *o)
{
    int n;
    for (n = 0; n < 150; n++, o = in(o, "deeper"))
        add(o, "deeper", J(object_new_object)());
}
const char *text_of_a(object *o) { return J(object_get_string)(in(o, "a")); }
void put_it(object *o) { J(object_put)(o); }

static object *kept;
void keep(object *o) { kept = J(object_get)(o); add_text(o); }
const char *kept_text(object *o) { (void)o; return J(object_get_string)(in(kept, "campaign")); }
int let_go(object *o) { (void)o; return J(object_put)(kept); }
"""
FASTJSON_ONLY = r"""
void big_double(object *o) { add(o, "rate", fjson_object_new_double(1e300)); }
void twice(object *o) { fjson_object_object_add_ex(o, "one", text("two"), FJSON_OBJECT_ADD_KEY_IS_NEW); }
void any_case(object *o) { (void)o; fjson_global_do_case_sensitive_comparison(0); }
void own_case(object *o) { (void)o; fjson_global_do_case_sensitive_comparison(1); }
"""
LIBRARIES = {
    #              header                 prefix    library         more C
    'libfastjson': ('libfastjson/json.h', 'fjson_', '-lfastjson', FASTJSON_ONLY),
    'json-c':      ('json-c/json.h',      'json_',  '-ljson-c',   ''),
}
FIELDS: dict[str, Any] = {
    'envelope': 'a@example.org', 'recipient': 'b@example.org', 'one': 1, 'nothing': None, 'nested': {'inner': 1},
    'mime': 'Subject: x\r\n\r\n\udcff\udc80 \xe9 \U0001F600 / \\ " \x01\x7f\r\n',
}
# What the libraries cannot hold, or write otherwise than we do. Each must stay what it is when another one changes.
DIFFICULT: dict[str, Any] = {
    'integer':       10 ** 40,
    'negative':      -10 ** 40,
    'unsigned':      2 ** 64 - 1,
    'double':        [0.1, 1e300, 1e-7, -0.0, 2.0, 5e-324],
    'order':         {'z': 1, 'a': 2},
    'NUL':           {'a\0b': 'c\0d'},
    'lone':          '\ud83d',
    'lone low':      '\udcff',
    'halves':        '\udcc3\udca9',
    '':              'no name',
    'a\0b':          'a name that ends early in C',
    'a':             'the name as it would be then',
    chr(0xdcff):     'not UTF-8',
    chr(0xd83d):     'not Unicode',
    '\ufffd':        'what stands for it',
    'empty':         [{}, [], ''],
    'case':          1,
    'Case':          2,
    'long':          'x' * 100_000,
}


def deep(levels: int) -> Any:
    value: Any = 'bottom'
    for level in range(levels):
        value = [value] if level % 2 else {'in': value}
    return value


class Bench:
    """One of the libraries, and a plugin that is linked with it."""

    def __init__(self, word: str, folder: Path) -> None:
        header, prefix, library, more = LIBRARIES[word]
        path = build_plugin(folder, PLUGIN + more, f'-DHEADER=<{header}>', f'-DJ(name)={prefix}##name', library)
        self.plugin = ctypes.CDLL(str(path))
        self.library = JsonLibrary(word)

    def call(self, name: str, made: JsonObject) -> Any:
        function = getattr(self.plugin, name)
        function.argtypes = [ctypes.c_void_p]
        return function(made.pointer)

    @contextlib.contextmanager
    def made(self, fields: dict[str, Any]) -> Iterator[JsonObject]:
        made = JsonObject(self.library, fields)
        try:
            yield made
        finally:
            made.free()

    def edit(self, name: str, fields: dict[str, Any]) -> dict[str, Any]:
        with self.made(fields) as made:
            self.call(name, made)
            return made.changes()


@pytest.fixture(scope='module', params=LIBRARIES)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(request.param, tmp_path_factory.mktemp('json'))


@pytest.fixture(scope='module')
def fastjson(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench('libfastjson', tmp_path_factory.mktemp('fastjson'))


@pytest.mark.parametrize(('edit', 'changes'), [
    ('nothing',          {}),
    ('add_text',         {'campaign': 'spring'}),
    ('add_null',         {'campaign': None}),
    ('add_nested',       {'campaign': {'list': [1, True, 0.5]}}),
    ('change_text',      {'envelope': 'bounce@example.org'}),
    ('same_again',       {}),
    ('change_nested',    {'nested': {'inner': 2}}),
    ('one_to_true',      {'one': True}),
    ('one_to_double',    {'one': 1.0}),
    ('remove_one',       {'one': REMOVED}),
    ('remove_nested',    {'nested': {}}),
    ('set_bytes',        {'mime': 'a\0b\udcff\xe9'}),
    ('mime_with_header', {'mime': 'X: y\r\n' + FIELDS['mime']}),
])
@pytest.mark.parametrize('more', [{}, DIFFICULT, {'deep': deep(DEPTH_LIMIT - 1)}], ids=['plain', 'difficult', 'deep'])
def test_what_c_changes_comes_back_and_nothing_else(bench: Bench, edit: str, changes: dict[str, Any],
                                                    more: dict[str, Any]) -> None:
    fields = {**FIELDS, **more}
    before = copy.deepcopy(fields)
    found = bench.edit(edit, fields)
    assert found == changes
    assert [type(value) for value in found.values()] == [type(value) for value in changes.values()]
    assert fields == before


def test_a_document_that_we_accept_is_one_that_the_library_holds(bench: Bench) -> None:
    for difficult in (DIFFICULT, deep(DEPTH_LIMIT - 1 + DEPTH_LIMIT % 2), {}):
        assert bench.edit('nothing', Document.decode(json.dumps(difficult).encode()).fields) == {}


def test_a_property_without_a_name_in_c_does_not_hide_another(bench: Bench) -> None:
    with bench.made({'a': 'seen', 'a\0b': 'unseen', '\ufffd': 'seen', chr(0xd83d): 'unseen'}) as made:
        bench.plugin.text_of_a.restype = ctypes.c_char_p
        assert bench.call('text_of_a', made) == b'seen'
        assert made._before == {'a': 'seen', '\ufffd': 'seen'}


@pytest.mark.parametrize(('edit', 'says'), [
    ('set_nan',      'NaN is not JSON'),
    ('set_infinite', '-Infinity is not JSON'),
    ('set_broken',   'not valid JSON: '),
    ('set_deep',     'more than 100 objects and arrays within each other'),
])
def test_what_is_no_json_is_named(bench: Bench, edit: str, says: str) -> None:
    with bench.made(FIELDS) as made:
        bench.call(edit, made)
        with pytest.raises(JsonFault, match=f'^the JSON as lib.* has it: .*{says}'):
            made.changes()


def test_a_fault_can_be_mended(bench: Bench) -> None:
    with bench.made({**FIELDS, 'rate': 1}) as made:
        bench.call('set_nan', made)
        with pytest.raises(JsonFault):
            made.changes()
        bench.call('add_text', made)
        bench.call('remove_rate', made)
        assert made.changes() == {'campaign': 'spring', 'rate': REMOVED}


def test_what_the_plugin_has_a_reference_to_outlives_us(bench: Bench) -> None:
    made = JsonObject(bench.library, FIELDS)
    bench.call('keep', made)
    bench.plugin.kept_text.restype = ctypes.c_char_p
    assert made.changes() == {'campaign': 'spring'}
    made.free()
    made.free()
    assert made.pointer is None
    assert bench.plugin.kept_text(None) == b'spring'
    assert bench.plugin.let_go(None) == 1       # it was the last


def test_a_plugin_that_puts_what_it_was_given_does_no_harm(bench: Bench) -> None:
    with bench.made(FIELDS) as made:
        bench.call('put_it', made)
        assert made.changes() == {}
        bench.call('change_text', made)
        assert made.changes() == {'envelope': 'bounce@example.org'}


def test_memory_is_given_back(bench: Bench) -> None:
    """Of 40 objects of 500 kB none is left, nor of 40 whose making failed."""
    def resident() -> int:
        return int(Path('/proc/self/statm').read_text().split()[1]) * 4096

    fields = {'mime': 'x' * 500_000}
    bench.edit('nothing', fields)
    before = resident()
    for _ in range(40):
        bench.edit('add_text', fields)
        with pytest.raises(JsonFault):
            JsonObject(bench.library, {**fields, 'rate': float('nan')})
    assert resident() - before < 10_000_000


@pytest.mark.parametrize(('fields', 'says'), [
    ({'deep': deep(DEPTH_LIMIT + 50)}, 'cannot hold the JSON: nesting too deep'),
    ({'rate': float('nan')},           'NaN is not JSON'),
])
def test_what_the_library_cannot_hold_is_said(bench: Bench, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(JsonFault, match=says):
        JsonObject(bench.library, fields)


def test_more_than_the_library_counts_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_object, 'TEXT_LIMIT', 1000)
    with pytest.raises(JsonFault, match='the JSON has 1011 bytes, more than lib.*so.. can be trusted with'):
        JsonObject(bench.library, {'mime': 'x' * 1000})


def test_libfastjson_writes_a_big_double_as_it_should_not(fastjson: Bench) -> None:
    with pytest.raises(JsonFault, match='not valid JSON'):
        fastjson.edit('big_double', FIELDS)


def test_of_a_name_that_libfastjson_has_twice_one_counts(fastjson: Bench) -> None:
    assert fastjson.edit('twice', FIELDS) in ({'one': 'two'}, {})


def test_libfastjson_taking_names_for_one_changes_nothing_of_ours(fastjson: Bench) -> None:
    with fastjson.made({}) as switch:
        fastjson.call('any_case', switch)
        try:
            with fastjson.made({'Mime': 'x', 'MIME': 'y'}) as both:
                assert len(both._before) == 1       # so the plugin has the same copy of the library as we
            assert fastjson.edit('add_text', {**FIELDS, 'Mime': 'x', 'MIME': {}}) == {'campaign': 'spring'}
        finally:
            fastjson.call('own_case', switch)


def test_a_host_without_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    row = host_library.LIBRARIES['json-c']._replace(soname='libjson-c.so.1')
    monkeypatch.setitem(host_library.LIBRARIES, 'json-c', row)
    with pytest.raises(HostLibraryError, match=r'^MQ_Json gives NULL: libjson-c.so.1: cannot open .*libjson-c5\)'):
        JsonLibrary('json-c')
