"""What the hardware allows: measured in the same run, so that a cell's time can be held against it.

The limit of a cell is the sum of two: the input product at the peak of the multiply-adds, and the
recurrent part at that peak or at the rate at which U can be read, whichever is longer. U is read
once a step, from the cache that holds it. In training the limit is all products at the peak: most
of them are over all rows and steps at once. Activations and everything else count as nothing, so
the limit can't be reached.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fastlstm import _core

from .grid import Cell

#: Seconds that one timing takes at least, and how many there are; the best of them counts.
_SECONDS, _TIMINGS = 0.01, 7


@dataclass(frozen=True)
class Limits:
    """Peaks of one thread.

    Attributes
    ----------
    flops : mapping of str to float
        Floating-point operations a second, by dtype.
    levels : tuple of (str, int, float)
        Cache levels from the nearest on, and memory last: name, bytes it holds, bytes a second.
        Memory holds everything: its size is 0. Empty when the cache sizes are unknown.
    """

    flops: Mapping[str, float]
    levels: tuple[tuple[str, int, float], ...]

    def bandwidth(self, size: float) -> float | None:
        """Bytes a second at which ``size`` bytes can be read again and again."""
        for _, holds, rate in self.levels:
            if size <= holds or holds == 0:
                return rate
        return None

    def seconds(self, cell: Cell, threads: int) -> float:
        """Least time of a call, with work and U shared out evenly over the threads."""
        peak = self.flops[cell.dtype] * threads
        if cell.training:
            return cell.flops / peak
        rows = cell.rows_of_steps * (cell.L * cell.D)
        u_bytes = cell.recurrent_bytes / len(rows)
        flops = [2 * n * cell.recurrent_weights for n in rows]
        # A thread reads its share of U, or all of it for its share of the rows.
        rate = self.bandwidth(u_bytes / threads)
        reading = 0.0 if rate is None else u_bytes / (rate * threads)
        recurrent = sum(max(one / peak, reading) for one in flops)
        return (cell.flops - sum(flops)) / peak + recurrent


def _rate(work: Callable[[int], float]) -> float:
    """Best of several timings of work(n), which returns an amount; amount a second."""
    n, seconds = 1, 0.0
    while seconds < _SECONDS:
        n *= 2
        start = time.perf_counter()
        work(n)
        seconds = time.perf_counter() - start
    best = 0.0
    for _ in range(_TIMINGS):
        start = time.perf_counter()
        done = work(n)
        best = max(best, done / (time.perf_counter() - start))
    return best


def measure_limits() -> Limits:
    """Measure the peaks of one thread, with the instruction set that fastlstm chose."""
    flops = {
        "float32": _rate(lambda n: _core.limit_fma(False, n)),
        "float64": _rate(lambda n: _core.limit_fma(True, n)),
    }
    sizes = _core.cache_sizes()
    levels: list[tuple[str, int, float]] = []
    if sizes:
        # Well inside a level, so that it is not the next one that is measured.
        part = {"L1d": 2}
        buffers = [(name, size, size // part.get(name, 4)) for name, size in sizes.items()]
        buffers.append(("memory", 0, 4 * max(sizes.values())))
        for name, holds, size in buffers:
            x = np.ones(size // 4, np.float32)
            levels.append((name, holds, _rate(lambda n, x=x: _core.limit_read(x, n))))  # type: ignore[misc]
    return Limits(flops, tuple(levels))
