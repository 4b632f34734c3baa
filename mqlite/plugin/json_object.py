"""A message's JSON as an object of libfastjson or json-c: what MQ_json and MQ_Json hand out.

    properties ── text ──► the library parses it ──► the plugin works on the object ──► the library writes it
                                    │                                                          │
                                  before ────────── what differs, property by property ─────► after

Built when a plugin asks for it, read back when the plugin has handed back control. What the library makes of the
untouched text is the measure: only a property of the top level whose value differs from that was changed, and only it
comes back. The others stay what they were, whatever the library does to them: integers beyond 64 bits, strings with
NUL, lone surrogates.

The libraries hold bytes where JSON has text, so a byte of the MIME that is not UTF-8, which travels as a lone surrogate
(see message/document), is that byte for the plugin, and comes back as such.

Limits. A plugin does not see properties whose name C has no way to write (NUL, lone surrogates). Within an object or
array that a plugin changed, all is as the library says: libfastjson cuts strings at NUL and integers to 64 bits.
libfastjson writes some doubles that a plugin made (1e300) in a form that is not JSON: an error, as NaN is. A plugin can
make libfastjson take a name twice (FJSON_OBJECT_ADD_KEY_IS_NEW), or take Mime and mime for one, in the whole process
(fjson_global_do_case_sensitive_comparison): which of the two counts is then the library's business. Both libraries
count bytes with an int, libfastjson without looking; hence TEXT_LIMIT.
"""

from __future__ import annotations

import ctypes
import json
import re
from typing import Any, Final

from mqlite.errors import MqliteError
from mqlite.message.document import DEPTH_LIMIT, Document, DocumentError
from mqlite.plugin.host_library import LIBRARIES, open_library

TEXT_LIMIT = 2 ** 29    # bytes of JSON; the library's own text is at most twice as long ('/' becomes '\/')
REMOVED: Final = object()   # the value of a property that the plugin took out

_FUNCTIONS = (
    # name                         result  arguments
    ('tokener_new_ex',             'data', 'int'),
    ('tokener_parse_ex',           'data', 'data bytes int'),
    ('tokener_get_error',          'int',  'data'),
    ('tokener_error_desc',         'text', 'int'),
    ('tokener_free',               'void', 'data'),
    ('object_get',                 'data', 'data'),
    ('object_put',                 'int',  'data'),
    ('object_to_json_string_ext',  'text', 'data int'),
    ('object_is_type',             'int',  'data int'),
    ('object_object_get_ex',       'int',  'data bytes data'),
    ('object_get_string',          'text', 'data'),
    ('object_get_string_len',      'int',  'data'),
)
_PLAIN = 0              # …_TO_STRING_PLAIN
_STRING = 6             # …_type_string
_LEVELS = DEPTH_LIMIT + 1   # tokeners count the innermost scalar, too

_NO_BYTES = re.compile('[\ud800-\udc7f\udd00-\udfff]')      # surrogates that do not stand for a byte
_NO_NAME = re.compile('[\0\ud800-\udfff]')


class JsonFault(MqliteError):
    """What a plugin made of the JSON cannot be published, or the library cannot hold the JSON; the text says which."""


class JsonLibrary:
    """libfastjson or json-c, by its word in LIBRARIES. HostLibraryError when the host has none."""

    def __init__(self, word: str) -> None:
        self.name = LIBRARIES[word].soname
        self.call = open_library(word, _FUNCTIONS)

    def parse(self, text: bytes) -> int:
        """The object; it is the caller's to put. JsonFault."""
        if len(text) > TEXT_LIMIT:
            raise JsonFault(f'the JSON has {len(text)} bytes, more than {self.name} can be trusted with')
        tokener = self.call.tokener_new_ex(_LEVELS)
        if not tokener:
            raise JsonFault(f'{self.name} has no memory')
        try:
            pointer: int | None = self.call.tokener_parse_ex(tokener, text, len(text))
            if not pointer:
                reason = self.call.tokener_error_desc(self.call.tokener_get_error(tokener))
                raise JsonFault(f'{self.name} cannot hold the JSON: {ctypes.string_at(reason).decode()}')
            return pointer
        finally:
            self.call.tokener_free(tokener)

    def fields(self, pointer: int) -> dict[str, Any]:
        """What the object holds by now. JsonFault when that is no JSON."""
        text = self.call.object_to_json_string_ext(pointer, _PLAIN)
        if not text:
            raise JsonFault(f'{self.name} has no memory')
        try:
            fields = Document.decode(ctypes.string_at(text)).fields
        except DocumentError as error:
            raise JsonFault(f'the JSON as {self.name} has it: {error}') from None
        for name, value in fields.items():
            if isinstance(value, str):
                fields[name] = self._string(pointer, name, value)
        return fields

    def _string(self, pointer: int, name: str, written: str) -> str:
        """All of a string: in the text, libfastjson ends it at the first NUL."""
        found = ctypes.c_void_p()
        self.call.object_object_get_ex(pointer, name.encode('utf-8', 'surrogateescape'), ctypes.addressof(found))
        if not self.call.object_is_type(found, _STRING):
            return written
        size = self.call.object_get_string_len(found)
        return ctypes.string_at(self.call.object_get_string(found), size).decode('utf-8', 'surrogateescape')


class JsonObject:
    """The properties of one document in the hands of plugins. `pointer` is for C; `free` it when the step is over."""

    def __init__(self, library: JsonLibrary, fields: dict[str, Any]) -> None:
        """JsonFault when the library cannot hold them."""
        self._library = library
        self.pointer: int | None = library.parse(_to_text(fields))
        # One reference more than we need: the vendor's pages do not say that a plugin must not put what it was given.
        library.call.object_get(self.pointer)
        try:
            self._before = library.fields(self.pointer)
        except JsonFault:
            self.free()
            raise

    def changes(self) -> dict[str, Any]:
        """What plugins changed since it was built: new values by name, REMOVED for what they took out.

        JsonFault when there is something in it that JSON has no form for; nothing is changed then.
        """
        assert self.pointer, 'it was freed'
        after = self._library.fields(self.pointer)
        changed = {name: value for name, value in after.items()
                   if name not in self._before or not _is_same(value, self._before[name])}
        changed.update((name, REMOVED) for name in self._before if name not in after)
        return changed

    def free(self) -> None:
        """Give up what is ours. The object lives on if the plugin has references of its own. Idempotent."""
        pointer, self.pointer = self.pointer, None
        if pointer and not self._library.call.object_put(pointer):      # 1: that was the last reference
            self._library.call.object_put(pointer)


def _to_text(fields: dict[str, Any]) -> bytes:
    shown = {name: value for name, value in fields.items() if not _NO_NAME.search(name)}
    text = json.dumps(shown, ensure_ascii=False, separators=(',', ':'))
    text = _NO_BYTES.sub(lambda found: f'\\u{ord(found[0]):04x}', text)
    return text.encode('utf-8', 'surrogateescape')


def _is_same(one: object, other: object) -> bool:
    """As JSON: 1, 1.0 and true are three things, as they are not in Python."""
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return json.dumps(one) == json.dumps(other)
