"""Workers that MPI started: ``mpiexec -n 4 fastlstm train ...``, or a script of one's own."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import TracebackType
from typing import Any

import numpy as np

from fastlstm._arguments import RealArray, as_size
from fastlstm._extras import import_for, missing
from fastlstm.distributed._limits import limited
from fastlstm.distributed.reduction import (
    TOLD,
    Float64,
    Reduction,
    WorkerError,
    limit_threads,
    place,
)

_WHAT = "training by MPI"

_hooked = False


class MPI(Reduction):
    """The workers of an MPI communicator, one for each process.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm, optional
        All of ``MPI.COMM_WORLD`` by default. Messages go through a duplicate of it, so that they
        meet no others.
    shards, reproducible
        As of `Reduction`.
    threads : int, optional
        Of each worker; by default the processors of its machine are shared out.
    timeout : int
        Seconds that a worker waits for the others. If one hangs, or a machine vanishes from the
        network, the launcher ends them all after that.

    Raises
    ------
    ImportError
        If mpi4py, or a library of MPI, is not installed.
    TypeError, ValueError
        If an argument is not as described, or the workers of a machine would have more threads than
        there are processors.

    Notes
    -----
    A worker that dies, by SIGKILL for instance, takes the others with it: ``mpiexec`` ends them. So
    does one that ends with an error outside of `Trainer.fit`, by ``sys.excepthook``. Where one ends
    without an error, by ``sys.exit``, while others still count on it, these raise a WorkerError: a
    worker says goodbye where Python exits, and waits there for the others to do so, as MPI does.
    """

    def __init__(
        self,
        comm: Any = None,
        *,
        shards: int = 8,
        reproducible: bool = True,
        threads: int | None = None,
        timeout: int = 1800,
    ) -> None:
        self._timeout = as_size("timeout", timeout)
        try:
            self._mpi = import_for(_WHAT, "mpi4py.MPI", "mpi", "mpi4py")
        except RuntimeError as error:  # what mpi4py makes of a library that is not there
            raise missing(_WHAT, "mpich", title="a library of MPI") from error
        world = self._mpi.COMM_WORLD
        with limited(self._timeout, lambda: self._end(world, self._waited)):
            self._comm = (world if comm is None else comm).Dup()
            if self._comm.size > 1:
                _end_all_by_errors_of_one(world)
            self._begin(self._comm.rank, self._comm.size, shards, reproducible)
            places = self._objects(place())
        if self.size > 1:
            atexit.register(self._leave, os.getpid())
        limit_threads(threads, places, self.rank)

    @property
    def _waited(self) -> str:
        return f"waited {self._timeout} seconds for the others, the limit that timeout= sets"

    def _records(self, record: Float64) -> Float64:
        records = np.empty((self.size, record.size))
        self._comm.Allgather(record, records)
        return records

    def _objects(self, value: Any) -> list[Any]:
        found: list[Any] = self._comm.allgather(value)
        return found

    def _add(self, vector: RealArray) -> None:
        self._comm.Allreduce(self._mpi.IN_PLACE, vector)

    def _deal(self, blocks: RealArray, counts: Sequence[int]) -> RealArray:
        _, k, length = blocks.shape
        got = np.empty((sum(counts), length), blocks.dtype)
        sent = [blocks, [k * length] * self.size]
        self._comm.Alltoallv(sent, [got, [count * length for count in counts]])
        return got

    def _collect(self, part: RealArray) -> RealArray:
        whole = np.empty((self.size, part.size), part.dtype)
        self._comm.Allgather(part, whole)
        return whole

    @contextmanager
    def _talking(self) -> Iterator[None]:
        limit = limited(self._timeout, lambda: self._abort(self._waited))
        with super()._talking(), limit if self.size > 1 else nullcontext():
            yield

    def _abort(self, text: str) -> None:
        # Others may be waiting for this worker, which would wait for them where MPI is finalised.
        if self.size > 1:
            self._end(self._comm, f"worker {self.rank}: {text}")

    @staticmethod
    def _end(comm: Any, text: str) -> None:
        """End the workers of a communicator, and this one."""
        # Whatever has become of stderr: who redirects it does not see the end.
        print(f"fastlstm: {text}", file=sys.__stderr__, flush=True)
        comm.Abort(1)

    def _leave(self, process: int) -> None:
        """Tell others that count on this worker that its program has ended; else wait for them."""
        if os.getpid() == process and not self._mpi.Is_finalized():  # no child of it
            self._fail(WorkerError("its program has ended, while others go on"))


def _end_all_by_errors_of_one(world: Any) -> None:
    """Let an error that ends this process, and that the others don't know of, end them too.

    They would wait for this worker, which would wait for them where Python finalises MPI.
    """
    global _hooked
    if _hooked:
        return
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        before(kind, error, trace)
        if not (isinstance(error, WorkerError) or hasattr(error, TOLD)):
            sys.stderr.flush()
            world.Abort(1)

    sys.excepthook = hook
    _hooked = True
