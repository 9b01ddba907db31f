"""Limits of time for calls that know none, as those of MPI."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Seconds between two looks at the clock.
_EVERY = 0.5
#: Seconds that there are to end in good order.
_GRACE = 10.0


class _Watch:
    """A thread that watches all calls that have a limit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limits: dict[object, tuple[float, Callable[[], object]]] = {}
        self._thread: threading.Thread | None = None

    def add(self, call: object, seconds: float, end: Callable[[], object]) -> None:
        self._limits[call] = time.monotonic() + seconds, end
        if self._thread is None or not self._thread.is_alive():  # as in a child
            with self._lock:
                self._thread = threading.Thread(target=self._look, daemon=True)
                self._thread.start()

    def remove(self, call: object) -> None:
        del self._limits[call]

    def _look(self) -> None:
        while True:
            time.sleep(_EVERY)
            now = time.monotonic()
            for latest, end in list(self._limits.values()):
                if now > latest:
                    threading.Timer(_GRACE, os._exit, [1]).start()
                    end()


_watch = _Watch()


@contextmanager
def limited(seconds: float, end: Callable[[], object]) -> Iterator[None]:
    """Have a function called that ends this process, if a ``with`` block takes so long.

    It is called in another thread; if it does not end the process, that happens soon after.
    """
    call = object()
    _watch.add(call, seconds, end)
    try:
        yield
    finally:
        _watch.remove(call)
