"""THE ABI TABLE: every function that C plugins call, and every one that they may define. Pure data.

Words stand for types; TYPES gives each its spelling in C and its ctypes type. The jump stubs of the shim, the
CFUNCTYPE objects behind them and the test of include/mailerq.h are made from these rows: there is no other list.

    names      all spellings with this signature: the one of generation 5 first, then those of generation 3
    does       the operation behind it; rows that differ only in what they return have operations of their own
    default    what C gets when the handle is not good, or when we fail: the harmless answer

Handles are integers in a table, never addresses, so every pointer to one of our structures is `c_void_p` here. Text
that we return is `c_void_p` too: a CFUNCTYPE that returns `c_char_p` leaks its copy. MQ_Continue, MQ_Complete and
MQ_Retry take a context in generation 3 and a connection in generation 5; a handle knows what it is, so `handle` is
either.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

#   word               C                       ctypes
TYPES: dict[str, tuple[str, Any]] = {
    'void':           ('void',                 None),
    'bool':           ('bool',                 ctypes.c_bool),
    'int':            ('int',                  ctypes.c_int),
    'size':           ('size_t',               ctypes.c_size_t),
    'float':          ('float',                ctypes.c_float),
    'data':           ('void *',               ctypes.c_void_p),
    'bytes':          ('const void *',         ctypes.c_void_p),
    'text':           ('const char *',         ctypes.c_void_p),
    'context':        ('MQ_Context *',         ctypes.c_void_p),
    'connection':     ('MQ_Connection *',      ctypes.c_void_p),
    'message':        ('MQ_Message *',         ctypes.c_void_p),
    'address':        ('MQ_Address *',         ctypes.c_void_p),
    'either':         ('void *',               ctypes.c_void_p),    # a message or an address
    'watcher':        ('MQ_IOWatcher *',       ctypes.c_void_p),
    'timer':          ('MQ_Timer *',           ctypes.c_void_p),
    'on-io':          ('MQ_IOCallback *',      ctypes.c_void_p),
    'on-timer':       ('MQ_TimerCallback *',   ctypes.c_void_p),
    'libev':          ('struct ev_loop *',     ctypes.c_void_p),
    'libfastjson':    ('struct fjson_object *', ctypes.c_void_p),
    'json-c':         ('struct json_object *', ctypes.c_void_p),
    'handle':         ('MQ_Connection *',      ctypes.c_void_p),    # generation 3: see OLD_TYPES
    'domain':         ('domain_record *',      ctypes.c_void_p),    # these five: of hooks, see hooks.py
    'time':           ('struct timeval *',     ctypes.c_void_p),
    'socket-address': ('struct sockaddr *',    ctypes.c_void_p),
    'place':          ('void **',              ctypes.c_void_p),
    'count':          ('ec_atomic_t *',        ctypes.c_void_p),
}
OLD_TYPES = {'handle': 'MQ_Context *'}  # what a word is in C for generation 3, where that differs


class Function(NamedTuple):
    """A function that plugins call; see the docstring of the module for the columns."""

    names: tuple[str, ...]
    result: str
    arguments: tuple[str, ...]
    does: str
    default: Any


class Callback(NamedTuple):
    """A function that plugins may define. `old` and `new`: result and arguments in generations 3 and 5."""

    name: str
    old: tuple[str, ...]
    new: tuple[str, ...]


def _rows(*rows: tuple[str, str, str, str, Any]) -> tuple[Function, ...]:
    return tuple(Function(tuple(names.split()), result, tuple(arguments.split()), does, default)
                 for names, result, arguments, does, default in rows)


FUNCTIONS = _rows(
    # names                                       result         arguments                     does             default
    ('MQ_continue',                                'void',        'connection',                 'continue',      None),
    ('MQ_complete',                                'void',        'connection',                 'complete',      None),
    ('MQ_retry',                                   'void',        'connection',                 'retry',         None),
    ('MQ_Continue',                                'void',        'handle',                     'continue',      None),
    ('MQ_Complete',                                'void',        'handle',                     'complete',      None),
    ('MQ_Retry',                                   'void',        'handle',                     'retry',         None),
    ('MQ_reject',                                  'void',        'connection int text text',   'reject',        None),

    ('MQ_fileDescriptor MQ_SmtpFileDescriptor',    'int',         'connection',                 'descriptor',    -1),
    ('MQ_send MQ_SmtpSend',                        'size',        'connection bytes size',      'send',          0),
    ('MQ_authenticated MQ_SmtpAuthenticated',      'bool',        'connection',                 'is-login',      False),
    ('MQ_setAuthenticated MQ_SetSmtpAuthenticated', 'void',        'connection bool',            'set-login',     None),
    ('MQ_secure MQ_SmtpSecure',                    'bool',        'connection',                 'secure',        False),
    ('MQ_connectionData MQ_SmtpData',              'data',        'connection',                 'data',          None),
    ('MQ_setConnectionData MQ_SetSmtpData',        'void',        'connection data',            'set-data',      None),

    ('MQ_contextData MQ_ContextData',              'data',        'context',                    'data',          None),
    ('MQ_setContextData MQ_SetContextData',        'void',        'context data',               'set-data',      None),
    ('MQ_ev',                                      'libev',       'context',                    'libev',         None),
    ('MQ_ioWatch MQ_IOWatch',                      'watcher',     'context int int on-io data', 'watch',         None),
    ('MQ_ioUnwatch MQ_IOUnwatch',                  'void',        'watcher',                    'unwatch',       None),
    ('MQ_startTimer MQ_TimerStart',                'timer',       'context float on-timer data', 'start',         None),
    ('MQ_stopTimer MQ_TimerStop',                  'void',        'timer',                      'stop',          None),
    ('MQ_resetTimer MQ_TimerReset',                'void',        'timer float',                'reset',         None),

    ('MQ_envelope',                                'address',     'message',                    'envelope',      None),
    ('MQ_Envelope',                                'text',        'message',                    'old-envelope',  None),
    ('MQ_setEnvelope MQ_SetEnvelope',              'void',        'message text size',          'set-envelope',  None),
    ('MQ_recipient',                               'address',     'message',                    'recipient',     None),
    ('MQ_Recipient',                               'text',        'message',                    'old-recipient', None),
    ('MQ_setRecipient MQ_SetRecipient',            'void',        'message text size',          'set-recipient', None),
    ('MQ_mime MQ_Mime',                            'text',        'message',                    'mime',          None),
    ('MQ_setMime MQ_SetMime',                      'void',        'message text size',          'set-mime',      None),
    ('MQ_email',                                   'text',        'address',                    'email',         None),
    ('MQ_local MQ_Local',                          'bool',        'either',                     'local',         False),
    ('MQ_setLocal MQ_SetLocal',                    'void',        'either bool',                'set-local',     None),
    ('MQ_json',                                    'libfastjson', 'message',                    'libfastjson',   None),
    ('MQ_Json',                                    'json-c',      'message',                    'json-c',        None),

    ('MQ_log',                                     'void',        'int text',                   'log',           None),
)

_STEP = ('bool', 'context', 'connection')
_ADDRESS = (*_STEP, 'address')
_TEXT = (*_STEP, 'text', 'size')
_MESSAGE = (*_STEP, 'message')

CALLBACKS = (
    #         name                       generation 3               generation 5
    Callback('mq_version',               ('int',),                  ('int',)),
    Callback('mq_initialize',            ('void',),                 ('void',)),
    Callback('mq_cleanup',               ('void',),                 ('void',)),
    Callback('mq_context_initialize',    ('bool', 'context'),       ('void', 'context')),
    Callback('mq_context_cleanup',       ('bool', 'context'),       ('void', 'context')),
    Callback('mq_smtp_in_connect',       _STEP,                     _STEP),
    Callback('mq_smtp_in_secure',        _STEP,                     _STEP),
    Callback('mq_smtp_in_authenticate',  (*_TEXT, 'text', 'size'),  (*_TEXT, 'text', 'size')),
    Callback('mq_smtp_in_mailfrom',      _TEXT,                     _ADDRESS),
    Callback('mq_smtp_in_rcptto',        _TEXT,                     _ADDRESS),
    Callback('mq_smtp_in_data',          _TEXT,                     _TEXT),
    Callback('mq_smtp_in_message',       _MESSAGE,                  _MESSAGE),
    Callback('mq_smtp_in_close',         _STEP,                     _STEP),
    Callback('mq_smtp_out_data',         _MESSAGE,                  _MESSAGE),
    Callback('mq_smtp_out_sent',         _MESSAGE,                  _MESSAGE),
)

# Handed to MQ_ioWatch and MQ_startTimer.
ON_IO = ('void', 'watcher', 'int', 'int', 'data')
ON_TIMER = ('void', 'data')

# Spelled the same in both generations; ours says nothing of a generation either.
BOTH = ('MQ_ev', 'MQ_log', 'MQ_reject')
EXPORTED = tuple(name for row in FUNCTIONS for name in row.names)


def prototype(signature: tuple[str, ...]) -> Any:
    """The CFUNCTYPE of (result, argument, ...). Its calls give up the interpreter's lock."""
    return ctypes.CFUNCTYPE(*(TYPES[word][1] for word in signature))


def c_types(signature: tuple[str, ...], generation: int) -> tuple[str, ...]:
    """The types as include/mailerq.h spells them, the result first."""
    old = OLD_TYPES if generation == 3 else {}
    return tuple(old.get(word, TYPES[word][0]) for word in signature)
