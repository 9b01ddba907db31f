"""Ctrl-C while a run goes on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def interrupt_deferred() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C wait: the function given tells whether it was pressed. Twice acts at once."""
    came = threading.Event()

    def remember(number: int, frame: object) -> None:
        if came.is_set():
            raise KeyboardInterrupt
        came.set()

    if threading.current_thread() is not threading.main_thread():
        yield came.is_set  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGINT, remember)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGINT, before)
