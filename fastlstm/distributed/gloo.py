"""Workers that PyTorch started, over gloo: ``torchrun --nproc-per-node 4 -m fastlstm ...``."""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from fastlstm._arguments import RealArray, as_size
from fastlstm._extras import import_for
from fastlstm.distributed.reduction import Float64, Reduction, limit_threads, place


class Gloo(Reduction):
    """The workers of ``torch.distributed``, over its backend for processors, gloo.

    Parameters
    ----------
    group : torch.distributed.ProcessGroup, optional
        Of the backend gloo; by default one of all processes. ``torch.distributed`` is initialised,
        from what ``torchrun`` says in the environment, where nobody has done it.
    shards, reproducible
        As of `Reduction`.
    threads : int, optional
        Of each worker; by default the processors of its machine are shared out.
    timeout : int
        Seconds that a worker waits for the others, with a `group` of its own making. One that dies
        is noticed at once, but not one that hangs, nor a machine that vanishes from the network.

    Raises
    ------
    ImportError
        If PyTorch is not installed.
    TypeError, ValueError
        If an argument is not as described, or the workers of a machine would have more threads than
        there are processors.
    """

    def __init__(
        self,
        group: Any = None,
        *,
        shards: int = 8,
        reproducible: bool = True,
        threads: int | None = None,
        timeout: int = 300,
    ) -> None:
        self._torch = import_for("training by torch.distributed", "torch", "torch", "PyTorch")
        self._dist = dist = self._torch.distributed
        self._timeout = as_size("timeout", timeout)
        limit = timedelta(seconds=self._timeout)
        self._is_given = group is not None
        if group is None and not dist.is_initialized():
            dist.init_process_group("gloo", timeout=limit)
            atexit.register(dist.destroy_process_group)  # or its threads may outlive what they use
        elif group is None:
            group = dist.new_group(backend="gloo", timeout=limit)
        self._group = group
        self._begin(dist.get_rank(group), dist.get_world_size(group), shards, reproducible)
        limit_threads(threads, self._objects(place()), self.rank)

    def _records(self, record: Float64) -> Float64:
        records: Float64 = self._collect(record)
        return records

    def _objects(self, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.size
        self._dist.all_gather_object(found, value, group=self._group)
        return found

    def _add(self, vector: RealArray) -> None:
        self._dist.all_reduce(self._torch.from_numpy(vector), group=self._group)

    def _deal(self, blocks: RealArray, counts: Sequence[int]) -> RealArray:
        _, k, length = blocks.shape
        got = np.empty((sum(counts), length), blocks.dtype)
        sent = self._torch.from_numpy(blocks.reshape(self.size * k, length))
        self._dist.all_to_all_single(
            self._torch.from_numpy(got), sent, list(counts), [k] * self.size, group=self._group
        )
        return got

    def _reason(self, error: BaseException) -> str:
        if not self._is_given and "Timed out" in str(error):
            return f"waited {self._timeout} seconds for it, the limit that timeout= sets ({error})"
        return str(error)

    def _collect(self, part: Any) -> Any:
        whole = np.empty((self.size, part.size), part.dtype)
        parts = list(self._torch.from_numpy(whole))
        self._dist.all_gather(parts, self._torch.from_numpy(part), group=self._group)
        return whole
