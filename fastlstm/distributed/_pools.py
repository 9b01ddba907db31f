"""Workers of an engine, given one part of a job after the other, and parts whose workers die.

An engine here is what `run_parts` needs of one: to hand out a part, to wait for some, to tell how
one ended. Everything else, where workers are and how they are started, is the engine's own.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Self, TypeVar

from fastlstm._extras import import_for

Part = TypeVar("Part")


class WorkerDiedError(RuntimeError):
    """A worker ended before its part did: it was killed, or took more memory than there is."""


class Engine(ABC):
    """Workers that call a function.

    Parameters
    ----------
    call : callable
        A function of a part, which can be pickled.
    workers : int
        Processes to start, where none are running at an address.
    address : str or None
        Of a cluster.
    threads : int
        Of a call. Ray sets as many processors aside.

    Raises
    ------
    ImportError
        If the engine's package is missing.
    ValueError
        If the engine has no address.
    """

    #: Whether a worker that dies ends the parts of all.
    dies_whole = False

    def __init__(
        self, call: Callable[[Any], None], workers: int, address: str | None, threads: int = 1
    ) -> None:
        self.call = call
        self.workers = workers
        self.threads = threads

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    @abstractmethod
    def slots(self) -> int:
        """Parts that keep the workers busy."""

    @abstractmethod
    def submit(self, part: Any) -> Any:
        """Hand out a part; return what stands for it."""

    @abstractmethod
    def wait(self, handles: Sequence[Any]) -> Iterable[Any]:
        """Return those of some parts that have ended, at least one."""

    @abstractmethod
    def error(self, handle: Any) -> BaseException | None:
        """Return what ended a part, a WorkerDiedError if its worker died; None if all went well."""

    @abstractmethod
    def close(self) -> None:
        """End the workers that this object started, whatever they do."""


class Processes(Engine):
    """Processes of this machine, by ``concurrent.futures``."""

    dies_whole = True

    def __init__(
        self, call: Callable[[Any], None], workers: int, address: str | None, threads: int = 1
    ) -> None:
        super().__init__(call, workers, address, threads)
        if address is not None:
            raise ValueError(f"address: got {address!r} of the engine processes, which has none")
        self._pool: futures.ProcessPoolExecutor | None = None

    @property
    def slots(self) -> int:
        return self.workers

    def submit(self, part: Any) -> Any:
        if self._pool is None:
            # Not forked: threads of this process, of a caller's or of a library's, would be lost.
            context = multiprocessing.get_context("spawn")
            self._pool = futures.ProcessPoolExecutor(self.workers, context, _begin)
        try:
            return self._pool.submit(self.call, part)
        except BrokenProcessPool:  # while it was idle
            self.close()
            return self.submit(part)

    def wait(self, handles: Sequence[Any]) -> Iterable[Any]:
        done = futures.wait(handles, return_when=futures.FIRST_COMPLETED).done
        if any(isinstance(handle.exception(), BrokenProcessPool) for handle in done):
            futures.wait(handles)  # they all have, or will have, the same error
            self.close()
            return handles
        return done

    def error(self, handle: Any) -> BaseException | None:
        error: BaseException | None = handle.exception()
        return WorkerDiedError(_DIED) if isinstance(error, BrokenProcessPool) else error

    def close(self) -> None:
        if self._pool is None:
            return
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = None
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(_GRACE)
            process.kill()  # one that was stopped heeds nothing else
            process.join()


_DIED = "its worker died: killed, or out of memory"

#: Seconds that a process has to end by itself.
_GRACE = 5.0


def _begin() -> None:
    """Leave Ctrl-C to the process that waits for this one, which ends it then, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that waits for it is gone: no other notices if it was killed.

    What was half-written is then found by the next run.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None  # it is started by multiprocessing
    parent.join()
    os._exit(1)


class Dask(Engine):
    """Workers of Dask: a cluster by its address, or one of this machine's processes.

    Dask gives the part of a worker that died to another one, as often as its
    ``distributed.scheduler.allowed-failures`` says, 3 times by default.
    """

    def __init__(
        self, call: Callable[[Any], None], workers: int, address: str | None, threads: int = 1
    ) -> None:
        super().__init__(call, workers, address, threads)
        distributed = import_for("the engine dask", "distributed", "dask", "Dask")
        self._wait = distributed.wait
        self._killed = distributed.scheduler.KilledWorker
        self._cluster = None
        if address is None:
            self._cluster = distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0"
            )
        self._client = distributed.Client(self._cluster or address)

    @property
    def slots(self) -> int:
        # Twice as many as there are threads, so that none waits for the next.
        threads: int = sum(self._client.nthreads().values())
        return 2 * max(threads, 1)

    def submit(self, part: Any) -> Any:
        return self._client.submit(self.call, part, pure=False)

    def wait(self, handles: Sequence[Any]) -> Iterable[Any]:
        try:
            done: Iterable[Any] = self._wait(list(handles), return_when="FIRST_COMPLETED").done
        except futures.CancelledError as error:  # by nobody here
            raise ConnectionError("Dask's scheduler can't be reached any more") from error
        return done

    def error(self, handle: Any) -> BaseException | None:
        error: BaseException | None = handle.exception()
        return WorkerDiedError(_DIED) if isinstance(error, self._killed) else error

    def close(self) -> None:
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()


class Ray(Engine):
    """Workers of Ray: a cluster by its address, or one of this machine's processes."""

    def __init__(
        self, call: Callable[[Any], None], workers: int, address: str | None, threads: int = 1
    ) -> None:
        super().__init__(call, workers, address, threads)
        self._ray = ray = import_for("the engine ray", "ray", "ray")
        self._is_own = not ray.is_initialized()
        if self._is_own:
            here = {}
            if address is None:
                here = {"num_cpus": workers * threads, "include_dashboard": False}
            ray.init(address, log_to_driver=False, configure_logging=False, **here)
        # Crashes are counted here, among the other failures.
        self._remote = ray.remote(call_part).options(num_cpus=threads, max_retries=0)
        self._call = ray.put(self.call)

    @property
    def slots(self) -> int:
        return 2 * max(int(self._ray.cluster_resources().get("CPU", 1)) // self.threads, 1)

    def submit(self, part: Any) -> Any:
        return self._remote.remote(self._call, part)

    def wait(self, handles: Sequence[Any]) -> Iterable[Any]:
        done: Iterable[Any] = self._ray.wait(list(handles), num_returns=1)[0]
        return done

    def error(self, handle: Any) -> BaseException | None:
        exceptions = self._ray.exceptions
        try:
            self._ray.get(handle)
        except exceptions.RayTaskError as error:
            cause: BaseException = error.cause
            return cause
        except (exceptions.WorkerCrashedError, exceptions.OutOfMemoryError) as error:
            return WorkerDiedError(f"{_DIED} ({type(error).__name__})")
        except exceptions.RayError as error:
            return RuntimeError(str(error))
        return None

    def close(self) -> None:
        if self._is_own:
            self._ray.shutdown()


def call_part(call: Callable[[Any], None], part: Any) -> None:
    """Call a function, as a task of Ray that gets it from the object store."""
    call(part)


#: By the names that ``--engine`` takes.
ENGINES: dict[str, type[Engine]] = {"processes": Processes, "dask": Dask, "ray": Ray}


def run_parts(
    engine: Engine,
    parts: Iterable[Part],
    retries: int,
    advance: Callable[[Part], object],
) -> dict[Part, BaseException]:
    """Call the engine's function with each part; return those that failed, with what they raised.

    Parameters
    ----------
    engine : Engine
    parts : iterable
        Hashable, each for one call.
    retries : int
        How often a part is tried again. Where a worker that dies takes others with it, those that
        it may have died of are tried alone after that, so that it is told whose fault it was.
    advance : callable
        Called with each part that is done.
    """
    waiting, suspects = deque(parts), deque[Part]()
    tries: Counter[Part] = Counter()
    running: dict[Any, Part] = {}
    failed: dict[Part, BaseException] = {}
    while waiting or suspects or running:
        source, slots = (suspects, 1) if suspects else (waiting, engine.slots)
        while source and len(running) < slots:
            part = source.popleft()
            running[engine.submit(part)] = part
        together = engine.dies_whole and len(running) > 1
        for handle in engine.wait(list(running)):
            part = running.pop(handle)
            error = engine.error(handle)
            if error is None:
                advance(part)
                continue
            died = isinstance(error, WorkerDiedError)
            if died and together:
                suspects.append(part)
                continue
            tries[part] += 1
            if tries[part] > retries:
                failed[part] = error
            else:
                (suspects if died else waiting).append(part)
    return failed
