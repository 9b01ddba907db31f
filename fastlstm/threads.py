"""How many threads a call may use.

A call shares its work over a pool of threads where that pays: sequences of a batch, the two
directions of a :class:`~fastlstm.BiLSTM`, or the units of a large layer. Results are the same to
the bit. At first the limit is what the environment variable ``FASTLSTM_NUM_THREADS`` says, else the
processors that the process may use. The pool's threads sleep between calls. One call at a time has
the pool; calls that other Python threads make meanwhile run on their own thread.

Threads of a call go in step, so one that loses its processor to another process holds up the
others. A call that finds its processors taken goes on with half of its threads, and the calls after
it begin with as many; after a pause, of 2 ms to a second as the load lasts, twice as many are tried
again.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fastlstm import _core
from fastlstm._arguments import as_size
from fastlstm._version import __version__

__all__ = ["get_num_threads", "num_threads", "register_threadpoolctl", "set_num_threads"]

#: The most that the pool takes.
MAX_THREADS = 64

_registered = False

# Limits of blocks that are open now, in whatever threads, and the setting before the first.
_lock = threading.Lock()
_limits: list[int] = []
_before = 0


def get_num_threads() -> int:
    """Return how many threads a call may use at most, the calling one included."""
    return _core.get_num_threads()


def set_num_threads(count: int) -> None:
    """Set how many threads a call may use at most, for the whole process.

    Parameters
    ----------
    count : int
        1 to 64, the calling thread included. More than there are processors are not used.

    Raises
    ------
    TypeError, ValueError
        If it is no integer or out of range.
    """
    _core.set_num_threads(as_size("count", count, MAX_THREADS))


@contextmanager
def num_threads(count: int) -> Iterator[None]:
    """Limit the threads of calls inside a ``with`` block; of the whole process, as the setter does.

    Parameters
    ----------
    count : int
        As for :func:`set_num_threads`.

    Examples
    --------
    >>> import fastlstm
    >>> with fastlstm.num_threads(1):
    ...     fastlstm.get_num_threads()
    1
    """
    before = get_num_threads()
    set_num_threads(count)
    try:
        yield
    finally:
        set_num_threads(before)


@contextmanager
def at_most(count: int) -> Iterator[None]:
    """Limit the threads of calls inside a ``with`` block, whatever other threads do meanwhile.

    The setting is the process's: of blocks in several threads at once the least counts, and the
    last one to leave puts back what there was before the first.
    """
    global _before
    limit = min(count, MAX_THREADS)
    with _lock:
        if not _limits:
            _before = get_num_threads()
        _limits.append(limit)
        set_num_threads(min(_limits))
    try:
        yield
    finally:
        with _lock:
            _limits.remove(limit)
            set_num_threads(min(_limits, default=_before))


def register_threadpoolctl() -> None:
    """Let ``threadpoolctl`` see and limit this package's threads.

    Importing fastlstm does it where threadpoolctl has been imported before.

    Raises
    ------
    ImportError
        If threadpoolctl is not installed.
    """
    import threadpoolctl

    class FastlstmController(threadpoolctl.LibController):  # type: ignore[misc]
        """The pool, found by the two functions that the compiled core exports."""

        user_api = "fastlstm"
        internal_api = "fastlstm"
        filename_prefixes = ("_core",)
        check_symbols = ("fl_get_num_threads", "fl_set_num_threads")

        def get_num_threads(self) -> int:
            return get_num_threads()

        def set_num_threads(self, num_threads: int) -> None:
            set_num_threads(min(num_threads, MAX_THREADS))

        def get_version(self) -> str:
            return __version__

    global _registered
    if not _registered:
        threadpoolctl.register(FastlstmController)
        _registered = True


if "threadpoolctl" in sys.modules:
    register_threadpoolctl()
