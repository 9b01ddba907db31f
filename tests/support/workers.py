"""Workers that an engine starts, to run a script of the tests' own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm.distributed.reduction import Reduction
from support.optional import missing, require
from support.processes import IMPORTABLE

SECONDS = 120  # after which workers count as hanging
ENGINES = ("mpi", "gloo")


def launcher(engine: str, count: int) -> list[str]:
    """The command that starts so many workers, or skip the test for want of the engine."""
    if engine == "gloo":
        require("torch")
        run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        return [sys.executable, *run]
    require("mpi4py")
    beside = Path(sys.executable).parent / "mpiexec"
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None:
        missing("mpiexec")
    return [str(mpiexec), "-n", str(count)]


def run(
    engine: str, count: int, *arguments: str, before: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments in each worker, ``before`` what stands before it."""
    python = [] if engine == "gloo" else [*before, sys.executable]  # torchrun adds it
    return subprocess.run(
        [*launcher(engine, count), *python, *arguments],
        # The number of threads is what torchrun would set, with a warning.
        env={**os.environ, "PYTHONPATH": IMPORTABLE, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )


class Threaded(Reduction):
    """Workers that are threads of this process: what engines do, in the simplest way."""

    def __init__(self, rank: int, desk: Desk, **options: Any) -> None:
        self._desk = desk
        self._begin(rank, desk.size, options.pop("shards", 8), options.pop("reproducible", True))

    def _records(self, record: Any) -> Any:
        return np.array(self._desk.swap(self.rank, record.copy()))

    def _objects(self, value: Any) -> list[Any]:
        return self._desk.swap(self.rank, value)

    def _add(self, vector: Any) -> None:
        vector[:] = sum(self._desk.swap(self.rank, vector.copy()))

    def _deal(self, blocks: Any, counts: Sequence[int]) -> Any:
        got = [theirs[self.rank] for theirs in self._desk.swap(self.rank, blocks)]
        assert [len(block) for block in got] == list(counts)
        return np.concatenate(got)

    def _collect(self, part: Any) -> Any:
        return np.array(self._desk.swap(self.rank, part.copy()))


class Desk:
    """Where threads leave what the others take."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._barrier = threading.Barrier(size, timeout=SECONDS)
        self._lying: list[Any] = [None] * size

    def swap(self, rank: int, value: Any) -> list[Any]:
        self._lying[rank] = value
        self._barrier.wait()
        found = list(self._lying)
        self._barrier.wait()
        return found


def in_threads(size: int, work: Callable[[Threaded], Any], **options: Any) -> list[Any]:
    """What each of so many workers returns, or the exception that it raises."""
    desk, results = Desk(size), [None] * size

    def begin(rank: int) -> None:
        try:
            results[rank] = work(Threaded(rank, desk, **options))
        except BaseException as error:
            results[rank] = error

    threads = [threading.Thread(target=begin, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
