"""THE ABI TABLE and include/mailerq.h say the same, both ways, as the C preprocessor reads the header."""

from __future__ import annotations

import ctypes
import re
import subprocess

import pytest

from mqlite.plugin import abi
from tests.support.process import ROOT, find_program

STRICT = ('-Wall', '-Wextra', '-Werror', '-pedantic')
COMPILERS = {'C99': ('gcc', '-std=c99'), 'C17': ('gcc', '-std=c17'), 'C++': ('g++', '-x', 'c++')}
MINIMAL = """#include <mailerq.h>
MQ_EXPORT int mq_version() { return MQ_API_VERSION; }
"""
WRONG = {  # for each generation, a callback with the signature of the other
    3: 'MQ_EXPORT bool mq_smtp_in_mailfrom(MQ_Context *c, MQ_Connection *n, MQ_Address *a) { return c && n && a; }',
    5: 'MQ_EXPORT bool mq_smtp_in_mailfrom(MQ_Context *c, MQ_Connection *n, const char *a, size_t s)'
       ' { return c && n && a && s; }',
}
SEEDS = {  # the spellings that the vendor's pages mix, in one generation
    3: 'bool f(MQ_SmtpConnection *c, MQ_Message *m, MQ_Context *x) { MQ_SetMime(m, MQ_Envelope(m), 1); MQ_Complete(x);'
       ' return MQ_SmtpSecure(c); }',
    5: 'bool f(MQ_Connection *c, MQ_Message *m) { MQ_SetMime(m, MQ_email(MQ_envelope(m)), 1); MQ_Complete(c);'
       ' return MQ_local(m) && MQ_local(MQ_recipient(m)); }',
}
_PROTOTYPE = re.compile(r'(?:__attribute__ ?\(\(visibility\("default"\)\)\) ?)?'
                        r'([\w ]+?[ *]+)\b((?:MQ|mq)_\w+) ?\((.*)\)')


def compile_c(source: str, *options: str) -> subprocess.CompletedProcess[str]:
    name, *flags = options
    return subprocess.run([find_program(name), *flags, f'-I{ROOT / "include"}', '-o', '-', '-'], input=source,
                          capture_output=True, text=True, timeout=60, errors='replace')


def declared(generation: int) -> dict[str, tuple[str, ...]]:
    """Every function of the header: its result and the types of its arguments, blanks made uniform."""
    done = compile_c('#include <mailerq.h>', 'gcc', '-E', '-P', f'-DMQ_API_GENERATION={generation}', '-x', 'c')
    assert done.returncode == 0, done.stderr
    statements = (' '.join(statement.split()) for statement in done.stdout.replace('_Bool', 'bool').split(';'))
    found = (_PROTOTYPE.fullmatch(statement) for statement in statements if not statement.startswith('typedef'))
    return {match[2]: (uniform(match[1]), *(uniform(without_name(argument)) for argument in split(match[3])))
            for match in found if match}


def split(arguments: str) -> list[str]:
    return [] if arguments.strip() == 'void' else arguments.split(',')


def without_name(argument: str) -> str:
    return re.sub(r'\w+\s*$', '', argument)


def uniform(words: str) -> str:
    return ' '.join(words.replace('*', ' * ').split())


def in_table(generation: int) -> dict[str, tuple[str, ...]]:
    rows = {name: (row.result, *row.arguments) for row in abi.FUNCTIONS for name in row.names}
    rows.update({row.name: row.old if generation == 3 else row.new for row in abi.CALLBACKS})
    return {name: tuple(uniform(word) for word in abi.c_types(signature, generation))
            for name, signature in rows.items()}


@pytest.mark.parametrize('generation', [3, 5])
def test_header_and_table_agree(generation: int) -> None:
    assert declared(generation) == in_table(generation)


def test_no_name_is_exported_twice() -> None:
    assert len(set(abi.EXPORTED)) == len(abi.EXPORTED)


@pytest.mark.parametrize('row', abi.FUNCTIONS, ids=lambda row: row.names[0])
def test_a_default_can_be_returned_to_c(row: abi.Function) -> None:
    function = abi.prototype((row.result, *row.arguments))(lambda *_arguments: row.default)
    assert function(*(0 for _ in row.arguments)) == row.default
    assert abi.TYPES[row.result][1] is not ctypes.c_char_p


@pytest.mark.parametrize('generation', [3, 5])
@pytest.mark.parametrize('language', COMPILERS)
def test_the_header_compiles_without_a_warning(language: str, generation: int) -> None:
    def compiled(source: str) -> subprocess.CompletedProcess[str]:
        name, *flags = COMPILERS[language]
        kind = () if '-x' in flags else ('-x', 'c')
        return compile_c(source, name, *flags, *kind, *STRICT, f'-DMQ_API_GENERATION={generation}', '-S')
    assert compiled(MINIMAL).stderr == ''
    assert compiled(MINIMAL + SEEDS[generation]).stderr == ''
    wrong = f'extern "C" {{ {WRONG[generation]} }}' if language == 'C++' else WRONG[generation]
    assert 'mq_smtp_in_mailfrom' in compiled(MINIMAL + wrong).stderr


def test_an_unknown_generation_does_not_compile() -> None:
    assert 'must be 3 or 5' in compile_c(MINIMAL, 'gcc', '-x', 'c', '-S', '-DMQ_API_GENERATION=4').stderr
