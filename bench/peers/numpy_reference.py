"""fastlstm's NumPy reference, in the dtype of the cell."""

from __future__ import annotations

import time
from collections.abc import Callable

from fastlstm import reference

from ..problem import Arrays, Problem
from . import UnsupportedError

LONGEST_CALL = 2.0
"""Seconds; the reference is left out of a cell where one call would take longer."""


class _Runner:
    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    def steps(self, count: int) -> Arrays:
        """Forward pass over the first ``count`` time steps."""
        p, cell = self._problem, self._problem.cell
        y, (h_n, c_n) = reference.forward(
            p.x[:count],
            (p.h_0, p.c_0),
            p.parameters,
            num_layers=cell.L,
            num_directions=cell.D,
            dtype=cell.dtype,
        )
        return y, h_n, c_n

    def __call__(self) -> object:
        return self.steps(self._problem.cell.T)

    def arrays(self) -> Arrays:
        return self.steps(self._problem.cell.T)


def expected_seconds(
    steps: Callable[[int], object], T: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Time of a call over T steps, in seconds, from a few steps of it."""
    few = min(T, 4)
    steps(1)  # imports, caches, threads of the BLAS
    start = clock()
    steps(few)
    return (clock() - start) * T / few


def build(problem: Problem, threads: int) -> _Runner:
    """Runner for the reference; the thread count comes from its BLAS's variables.

    Raises
    ------
    UnsupportedError
        If one call would take longer than ``LONGEST_CALL``.
    """
    runner = _Runner(problem)
    seconds = expected_seconds(runner.steps, problem.cell.T)
    if seconds > LONGEST_CALL:
        raise UnsupportedError(
            f"skipped, as one call would take about {seconds:.0f} s, over {LONGEST_CALL:g} s"
        )
    return runner
