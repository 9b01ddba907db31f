"""Python in a process of its own, and work for it to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

import fastlstm
from fastlstm import LSTM, BiLSTM
from support.paths import TESTS

#: For PYTHONPATH: where a process finds this process' package, and these helpers.
IMPORTABLE = os.pathsep.join([str(Path(fastlstm.__file__).parents[1]), str(TESTS)])

#: That this process may run on.
PROCESSORS = (
    len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
)

FOREVER = 2**40  # steps
SECONDS = 60  # after which a child counts as hanging


def work() -> bytes:
    """Results of a call on the pool's threads."""
    layer = BiLSTM(20, 67, 2, seed=1)
    return layer(np.ones((200, 8, 20), np.float32))[0].tobytes()


def endless_call() -> None:
    """Have the pool for ever."""
    layer = LSTM(16, 40, return_sequences=False, seed=0)
    layer(np.broadcast_to(np.ones((1, 16, 16), np.float32), (FOREVER, 16, 16)))


def code_of_child(child: Callable[[], bool]) -> int:
    """Fork; return the exit code of the child: 0 if it returned true."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(SECONDS)  # a child that hangs is killed, which is a failure
            code = 0 if child() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
