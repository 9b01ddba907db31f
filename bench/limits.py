"""What the hardware allows: measured in the same run, so that a cell's time can be held against it.

The limit of a cell is the sum of two: the input product at the peak of the multiply-adds, and the
recurrent part at that peak or at the rate at which U can be read, whichever is longer. U is read
once a step, by sweeps that turn round: each finds in every cache what the one before left there.
In training the limit is all products at the peak: most of them are over all rows and steps at once.
Activations and everything else count as nothing, so the limit can't be reached.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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

    def reading(self, size: float) -> float:
        """Least seconds in which ``size`` bytes can be read again and again, back and forth."""
        seconds = 0.0
        for _, holds, rate in self.levels:
            part = min(size, holds) if holds else size
            seconds += part / rate
            size -= part
        return seconds

    def seconds(self, cell: Cell, threads: int) -> float:
        """Least time of a call, with work and U shared out evenly over the threads."""
        peak = self.flops[cell.dtype] * threads
        if cell.training:
            return cell.flops / peak
        rows = cell.rows_of_steps * (cell.L * cell.D)
        u_bytes = cell.recurrent_bytes / len(rows)
        flops = [2 * n * cell.recurrent_weights for n in rows]
        # A thread reads its share of U, or all of it for its share of the rows.
        reading = self.reading(u_bytes / threads)
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


def _ones_in_whole_lines(n: int) -> NDArray[np.float32]:
    """Make an array that begins with a cache line, or each vector would take two lines to read."""
    line = 64
    room = np.ones(n + line // 4, np.float32)
    first = -room.ctypes.data % line // 4
    return room[first : first + n]


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
            x = _ones_in_whole_lines(size // 4)
            levels.append((name, holds, _rate(lambda n, x=x: _core.limit_read(x, n))))  # type: ignore[misc]
    return Limits(flops, tuple(levels))
