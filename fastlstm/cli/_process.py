"""Signals, pipes and exit codes: how every command ends, whatever ends it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from fastlstm.cli._messages import UserError, error, note

# As a shell reports a process that a signal ended, by the numbers of SIGINT, SIGPIPE and SIGTERM.
INTERRUPTED, PIPE_BROKEN, TERMINATED = 128 + 2, 128 + 13, 128 + 15


class Terminated(KeyboardInterrupt):
    """Ctrl-C in what it does, asked for by SIGTERM."""


def run_guarded(execute: Callable[[], int]) -> int:
    """Call a function, and return its exit code or that of what ended it, told in one line.

    Errors of this program's own are not hidden.
    """
    try:
        with _interrupts_heard(), _on_termination(_leave), _written_out():
            return execute()
    except Terminated:
        return TERMINATED
    except KeyboardInterrupt:
        note("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return PIPE_BROKEN  # who stopped reading knows
    except (UserError, OSError, ImportError, MemoryError) as failure:
        error(str(failure) or type(failure).__name__)
        return 2


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does, for what has something to save first.

    What leaves is `Terminated` then.
    """
    asked = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.raise_signal(signal.SIGINT)

    try:
        with _on_termination(interrupt):
            yield
    except KeyboardInterrupt:
        if asked:
            raise Terminated from None
        raise


@contextmanager
def _interrupts_heard() -> Iterator[None]:
    """Hear Ctrl-C again, of which `fastlstm._start` has the system take care; then no more."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """Unwind the stack as Ctrl-C does, so that no partial file stays behind."""
    sys.exit(TERMINATED)


@contextmanager
def _on_termination(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Handle SIGTERM in a way of one's own."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _written_out() -> Iterator[None]:
    """Write out what was printed, while an error can still be told."""
    try:
        try:
            yield
        finally:
            print(end="", flush=True)
    except OSError:
        _drop_what_cannot_be_written()
        raise


def _drop_what_cannot_be_written() -> None:
    """Send the rest of what was printed nowhere, or the interpreter would complain at its end."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError:
            with suppress(OSError):  # a stream without a file
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
