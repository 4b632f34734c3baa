"""A libev loop in a reactor: what MQ_ev hands out.

    before                                   since MQ_ev was called
    epoll_wait(ours)                         ev_run(loop) ── libev's descriptors, timers, … of plugins
                                                 └── an ev_io on our epoll descriptor, an ev_timer for our patience
                                             epoll_wait(ours, 0)

The reactor asks its clock to wait; LibevClock takes the place of that clock and waits in ev_run, one iteration at a
time. So plugins' callbacks run inside our wait, in the reactor's thread, where MQ_* functions record and at most use
`call_soon`: the turn that follows runs it. A reactor whose plugins do not ask for the loop never comes here. With it a
turn costs one microsecond more.

What plugins may do to the loop, and what comes of it:
    ev_break          ends this iteration, which would be over anyway: nothing
    ev_ref, ev_unref  our own watchers count as two: the loop waits on when a plugin has none
    ev_idle           libev does not wait while one is active, nor do we
    ev_run            within a callback: the worker stands still until it returns; libev's rules, the plugin's mistake
    ev_child          works in libev's default loop only, which this is not

Not for VirtualClock, whose time libev knows nothing of.
"""

from __future__ import annotations

import ctypes

from mqlite.loop.clock import Clock, Ready, Selector
from mqlite.loop.reactor import Reactor
from mqlite.plugin.host_library import HostLibraryError, open_library
from mqlite.recorder import Seat, mark

_FUNCTIONS = (
    # name          result   arguments
    ('loop_new',     'data', 'int'),
    ('loop_destroy', 'void', 'data'),
    ('run',          'int',  'data int'),
    ('io_start',     'void', 'data data'),
    ('io_stop',      'void', 'data data'),
    ('timer_again',  'void', 'data data'),
    ('iteration',    'int',  'data'),
)
_READ = 1 | 0x80                # EV_READ | EV__IOFDSET: the descriptor is one that the loop does not know yet
_NOWAIT, _ONCE = 1, 2           # EVRUN_NOWAIT, EVRUN_ONCE
_MARK = mark('libev, on behalf of a plugin that has called MQ_ev')
_BEST_BACKEND = 0               # EVFLAG_AUTO: epoll on Linux; the operator's LIBEV_FLAGS may say otherwise


class EvIo(ctypes.Structure):
    """struct ev_io of ev.h, as distributions compile it: EV_COMMON is one pointer, and watchers have priorities."""

    _fields_ = [('active', ctypes.c_int), ('pending', ctypes.c_int), ('priority', ctypes.c_int),
                ('data', ctypes.c_void_p), ('callback', ctypes.c_void_p),
                ('next', ctypes.c_void_p), ('fd', ctypes.c_int), ('events', ctypes.c_int)]


class EvTimer(ctypes.Structure):
    """struct ev_timer; times in seconds."""

    _fields_ = [('active', ctypes.c_int), ('pending', ctypes.c_int), ('priority', ctypes.c_int),
                ('data', ctypes.c_void_p), ('callback', ctypes.c_void_p),
                ('at', ctypes.c_double), ('repeat', ctypes.c_double)]


class LibevClock(Clock):
    """The machine's clocks, and a wait that libev drives. `pointer` is the struct ev_loop *; make and use it in the
    thread of the reactor. HostLibraryError when there is no libev or the reactor's clock cannot be replaced."""

    def __init__(self, reactor: Reactor, seat: Seat) -> None:
        if type(reactor.clock) is not Clock:
            raise HostLibraryError(f'MQ_ev gives NULL: libev cannot drive a {type(reactor.clock).__name__}')
        self._ev = open_library('libev', _FUNCTIONS)
        self.pointer: int = self._ev.loop_new(_BEST_BACKEND)
        if not self.pointer:
            raise HostLibraryError('MQ_ev gives NULL: libev made no loop; are there descriptors left (ulimit -n), and '
                                   'is LIBEV_FLAGS, if set, something that this kernel has?')
        # Our watchers only end the wait. Their callback is a function of libev that just reads a number, not one in
        # Python: a signal handler that raises would be run in it, and ctypes would drop the exception.
        nothing = ctypes.cast(self._ev.iteration, ctypes.c_void_p)
        self._io = EvIo(callback=nothing, fd=reactor.fileno(), events=_READ)
        self._timer = EvTimer(callback=nothing)
        self._io_at, self._timer_at = ctypes.addressof(self._io), ctypes.addressof(self._timer)
        self._ev.io_start(self.pointer, self._io_at)
        self._reactor, self._before, self._seat = reactor, reactor.clock, seat
        reactor.clock = self

    def wait(self, selector: Selector, seconds: float | None, busy: bool) -> Ready:
        self._seat.enter(_MARK)
        if seconds is not None and seconds <= 0:
            self._ev.run(self.pointer, _NOWAIT)
        else:
            self._timer.repeat = seconds or 0.0
            self._ev.timer_again(self.pointer, self._timer_at)  # starts it, puts it off, or stops it when repeat is 0
            self._ev.run(self.pointer, _ONCE)
        self._seat.leave()
        return selector.select(0)

    def close(self) -> None:
        """The reactor waits as before. Plugins must have stopped their watchers: libev forgets them."""
        self._reactor.clock = self._before
        self._timer.repeat = 0.0
        self._ev.timer_again(self.pointer, self._timer_at)
        self._ev.io_stop(self.pointer, self._io_at)
        self._ev.loop_destroy(self.pointer)
