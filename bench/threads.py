"""Holding every library to the same number of threads.

Most libraries read their thread count once, when they are loaded, and NumPy is loaded long before
the benchmark starts.  So the benchmark runs in a child process whose environment and processor
affinity are set from the outside; what has a switch of its own (PyTorch, ONNX Runtime, OpenVINO)
is also set through it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_COUNTS = (
    "FASTLSTM_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NPROC",  # XLA's pool on CPUs
)
_XLA_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false"


def processors() -> list[int]:
    """Numbers of the processors this process may use, sorted."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def parse_count(text: str) -> int:
    """Thread count from ``"all"`` or a number.

    Raises
    ------
    ValueError
        If text is neither, or more than the processors this process may use.
    """
    available = len(processors())
    if text == "all":
        return available
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"threads must be 'all' or a number from 1, got {text!r}")
    if int(text) > available:
        raise ValueError(f"threads is {text}, but this process may use {available} processors only")
    return int(text)


def environment(count: int, current: Mapping[str, str]) -> dict[str, str]:
    """Variables that hold the libraries to ``count`` threads, given the current environment."""
    wanted = dict.fromkeys(_COUNTS, str(count))
    wanted["JAX_PLATFORMS"] = "cpu"
    flags = current.get("XLA_FLAGS", "").split()
    if count == 1 and _XLA_ONE_THREAD not in flags:
        flags.append(_XLA_ONE_THREAD)
    if flags:
        wanted["XLA_FLAGS"] = " ".join(flags)
    return wanted


def environment_is_set(count: int) -> bool:
    """Whether this process was started with the environment that ``count`` threads need."""
    return all(os.environ.get(k) == v for k, v in environment(count, os.environ).items())


@contextmanager
def pinned(count: int) -> Iterator[tuple[int, ...] | None]:
    """Pin this thread, and what it starts, to ``count`` processors while the context lasts.

    Yields the processors' numbers, or None where the system has no way to pin or refuses.  The
    last ones are taken, as the first often serves interrupts.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield None
        return
    before = os.sched_getaffinity(0)
    chosen = tuple(sorted(before)[-count:])
    try:
        os.sched_setaffinity(0, chosen)
    except OSError:
        yield None
        return
    try:
        yield chosen
    finally:
        os.sched_setaffinity(0, before)


def run_in_child(argv: Sequence[str], count: int) -> int:
    """Run ``python -m fastlstm.bench argv`` in a child process made for ``count`` threads.

    Returns its exit code, as a shell does where a signal ended it.  The child finds modules where
    this process does.
    """
    path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
    env = {**os.environ, **environment(count, os.environ), "PYTHONPATH": path}
    command = [sys.executable, "-P", "-m", "fastlstm.bench", *argv]
    with pinned(count), _interrupts_left_to_others():
        code = subprocess.run(command, env=env, check=False).returncode
    return code if code >= 0 else 128 - code


@contextmanager
def _interrupts_left_to_others() -> Iterator[None]:
    """Leave Ctrl-C to the child, which gets it too and ends as every command does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # which a child would inherit, and a function not
        signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
