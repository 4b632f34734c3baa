"""The event loop: reactor, timers, tasks, streams, datagrams, worker threads. Knows nothing of mail.

Two layers. The reactor runs callbacks: watch a descriptor, run a timer, wake from another thread. The task layer on
top of it runs `async def`; everything that can wait, waits on one awaitable, the `Waiter`. This folder is the only one
that imports `socket`, `ssl`, `selectors`, `threading` and the monotonic clock.
"""
