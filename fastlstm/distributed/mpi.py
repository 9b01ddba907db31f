"""Workers that MPI started: ``mpiexec -n 4 fastlstm train ...``, or a script of one's own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np

from fastlstm._arguments import RealArray
from fastlstm._extras import import_for, missing
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
    does one that ends with an error outside of `Trainer.fit`, by ``sys.excepthook``.
    """

    def __init__(
        self,
        comm: Any = None,
        *,
        shards: int = 8,
        reproducible: bool = True,
        threads: int | None = None,
    ) -> None:
        try:
            self._mpi = import_for(_WHAT, "mpi4py.MPI", "mpi", "mpi4py")
        except RuntimeError as error:  # what mpi4py makes of a library that is not there
            raise missing(_WHAT, "mpich", title="a library of MPI") from error
        self._comm = (self._mpi.COMM_WORLD if comm is None else comm).Dup()
        if self._comm.size > 1:
            _end_all_by_errors_of_one(self._mpi.COMM_WORLD)
        self._begin(self._comm.rank, self._comm.size, shards, reproducible)
        limit_threads(threads, self._objects(place()), self.rank)

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

    def _abort(self, text: str) -> None:
        # Others may be waiting for this worker, which would wait for them where MPI is finalised.
        if self.size > 1:
            print(f"fastlstm: worker {self.rank}: {text}", file=sys.stderr, flush=True)
            self._comm.Abort(1)


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
