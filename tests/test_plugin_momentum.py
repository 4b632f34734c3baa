"""Momentum's headers and our table agree, and modules of Momentum are loaded by the rule of include/module.h."""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from mqlite.errors import ConfigError
from mqlite.plugin import hooks, momentum
from mqlite.plugin.hook_values import DomainRecord, MxRecord
from mqlite.plugin.outgoing import CONN_ERRORS, SIGN
from tests.support.c_plugin import build_plugin
from tests.support.hook_bench import INCLUDES, NAMES, HookBench
from tests.support.plugins import LOG, stop_host
from tests.support.process import HOST, ROOT, find_program

COMPILERS = (('gcc', '-std=c99', '-x', 'c'), ('gcc', '-std=c17', '-x', 'c'), ('g++', '-x', 'c++'))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / 'plugins'
    made.mkdir()
    return made


# the headers

def compile_c(source: str, compiler: Sequence[str], *options: str | Path) -> str:
    """What the compiler says."""
    name, *flags = compiler
    command = [find_program(name), *flags, '-Wall', '-Wextra', '-Werror', '-pedantic', '-I', ROOT / 'include', *options]
    return subprocess.run([*command, '-'], input=source, capture_output=True, text=True, timeout=60).stderr


def test_each_hook_has_a_header_and_each_header_a_row() -> None:
    assert {path.stem for path in (ROOT / 'include' / 'hooks' / 'core').iterdir()} == set(NAMES)


@pytest.mark.parametrize('row', hooks.HOOKS, ids=NAMES)
def test_a_header_has_the_types_of_the_table(row: hooks.Hook) -> None:
    done = subprocess.run([find_program('gcc'), '-E', '-P', '-I', ROOT / 'include',
                           ROOT / 'include' / 'hooks' / 'core' / f'{row.name}.h'], capture_output=True, text=True)
    text = ' '.join(done.stdout.split())
    types = re.escape(hooks.prototype(row))
    assert re.search(rf'typedef {row.result} ec_hook_core_{row.name}_func_t ?{types};', text)
    for function in (f'int has_core_{row.name}_hook(void)', f'void register_core_{row.name}_hook_first(',
                     f'void register_core_{row.name}_hook_last(', f'{row.result} call_core_{row.name}_hook ('):
        assert f'static __inline__ {function}' in text
    assert f'"{hooks.prototype(row)}"' in text, 'what the host compares'


@pytest.mark.parametrize('compiler', COMPILERS, ids=' '.join)
def test_the_headers_compile_without_a_warning(compiler: tuple[str, ...], tmp_path: Path) -> None:
    use = 'static void on(void *c, domain_record *d, int s, struct timeval *n, int f)' \
          '{ (void)c; (void)d; (void)s; (void)n; (void)f; }\n' \
          'void use(void); void use(void) { register_core_post_initiate_connection_smtp_hook_first(on, 0);' \
          'call_core_post_initiate_connection_smtp_hook(0, 0, 0, CONN_ERROR(CONN_ERROR_BIND)); }\n'
    module = 'static int setup(generic_module_infrastructure *me, int n) { me->module_private_data = 0; return n; }' \
             'EC_MODULE_EXPORT generic_module_infrastructure count = {{ EC_MODULE_INIT(EC_MODULE_TYPE_SINGLETON, 0),' \
             '"c", "d", NULL, NULL, NULL, NULL, NULL, setup, NULL, NULL, NULL }};\n'
    source = '#include <module.h>\n' + INCLUDES + INCLUDES + use + module
    assert compile_c(source, compiler, '-c', '-o', tmp_path / 'object') == ''


def test_the_structures_of_c_and_python_are_the_same(tmp_path: Path) -> None:
    fields = [('domain_record', DomainRecord), ('mx_record', MxRecord),
              ('shared_module_infrastructure_8', momentum.Infrastructure)]
    lines = [f'printf("%zu ", offsetof({name}, {field}));' for name, structure in fields
             for field, *_ in structure._fields_]
    lines += [f'printf("%zu ", sizeof({name}));' for name, _ in fields]
    lines += [f'printf("%d ", {name});' for name in CONN_ERRORS]
    lines += ['printf("%d %u %d %d %d", CONN_ERROR(0), EC_MODULE_API_VERSION, EC_MODULE_TYPE_SINGLETON,'
              'EC_MODULE_INIT_INIT, EC_MODULE_INIT_DESTROY);']
    main = '#include <stdio.h>\n#include <module.h>\n' + INCLUDES + 'int main(void) {' + ''.join(lines) + 'return 0; }'
    assert compile_c(main, COMPILERS[0], '-o', tmp_path / 'program') == ''
    printed = subprocess.run([tmp_path / 'program'], capture_output=True, text=True, check=True).stdout
    ours = [getattr(structure, field).offset for _, structure in fields for field, *_ in structure._fields_]
    ours += [ctypes.sizeof(structure) for _, structure in fields]
    ours += [*CONN_ERRORS.values(), SIGN, momentum.API_VERSION, momentum.SINGLETON, momentum.INIT, momentum.DESTROY]
    assert printed.split() == [str(number) for number in ours]


def test_no_two_errors_are_the_same() -> None:
    header = (ROOT / 'include' / 'connection.h').read_text()
    bits = [int(text, 16) for text in re.findall(r'#define CONN_(?:ERROR|ACTION)_\w+ +(0x\w+)', header)]
    assert len(bits) == 14 and sum(bits) == 2 ** 14 - 1, 'Momentum names 14, and each is a bit'


# modules of Momentum

STRUCTURE = '#include <module.h>\n' + INCLUDES + """#include <mailerq.h>
static void on(void *c, domain_record *d, int s, struct timeval *n, int f) { (void)d; (void)s; (void)n; (void)f;
    MQ_log(MQ_INFO, ((generic_module_infrastructure *)c)->shared.module_name); }
static int setup(generic_module_infrastructure *self, int n) { self->module_private_data = "private";
    MQ_log(MQ_INFO, "conf_setup"); return n; }
static int init(generic_module_infrastructure *self, ec_config_header *t, string *o, int flags) {
    if (t || o || flags & EC_MODULE_INIT_PRIVILEGED) return -1;
    switch (EC_MODULE_INIT_MODE(flags)) {
    case EC_MODULE_INIT_INIT: MQ_log(MQ_INFO, self->module_private_data);
        register_core_post_initiate_connection_smtp_hook_last(on, self); break;
    case EC_MODULE_INIT_DESTROY: MQ_log(MQ_INFO, "destroy"); break; }
    return 0; }
EC_MODULE_EXPORT generic_module_infrastructure count_it = {{
    EC_MODULE_INIT(TYPE, 0), "count.c", "Counts", NULL, NULL, NULL, NULL, NULL, setup, NULL, NULL, init }};
"""
FUNCTIONS = '#include <module.h>\n' + INCLUDES + """#include <mailerq.h>
static void on(void *c, domain_record *d, int s, struct timeval *n, int f) { (void)d; (void)s; (void)n; (void)f;
    MQ_log(MQ_INFO, c); }
int conf_setup(generic_module_infrastructure *self, int n) { self->module_private_data = "called"; return n; }
int ext_init(generic_module_infrastructure *self, ec_config_header *t, string *o, int flags) { (void)t; (void)o;
    register_core_post_initiate_connection_smtp_hook_last(on, self->module_private_data);
    return flags != EC_MODULE_INIT_INIT; }
"""


def load(folder: Path, source: str, name: str) -> list[str]:
    """A shared object that is no plugin of mqlite's own: what it says at start, an attempt, and the stop."""
    build_plugin(folder, source, name=name)
    bench = HookBench(folder)
    bench.open(HOST, True)
    stop_host(bench.host, bench.reactor)
    bench.close()
    return LOG.said()


@pytest.mark.parametrize('kind', ['GENERIC', 'SINGLETON'])
def test_a_module_with_its_structure(folder: Path, kind: str) -> None:
    said = load(folder, STRUCTURE.replace('TYPE', f'EC_MODULE_TYPE_{kind}'), '40-count-it')
    assert said == ['conf_setup', 'private', 'count.c'] + (['destroy'] if kind == 'GENERIC' else [])


def test_a_module_of_functions(folder: Path) -> None:
    assert load(folder, FUNCTIONS, '40-functions') == ['called']


@pytest.mark.parametrize(('source', 'name', 'text'), [
    (STRUCTURE.replace('TYPE', '0'), '40-other-name', 'is no module of Momentum'),
    (STRUCTURE.replace('EC_MODULE_INIT(TYPE, 0)', '1, 0, NULL'), '40-count-it', 'is no module of Momentum'),
    (FUNCTIONS.replace('return n', 'return n - 1'), '40-unwilling', '40-unwilling.so failed in mq_initialize.*'
     'conf_setup returned -1'),
])
def test_what_is_no_module_stops_the_start(folder: Path, source: str, name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        load(folder, source, name)
