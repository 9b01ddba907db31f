"""fastlstm's NumPy reference, in the dtype of the cell."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fastlstm import reference, variants

from ..problem import Arrays, Problem, drawn_masks, result_gradients
from . import UnsupportedError

LONGEST_CALL = 2.0
"""Seconds; the reference is left out of a cell where one call would take longer."""


class _Runner:
    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._given = result_gradients(problem.cell) if problem.cell.training else None
        self._masks = drawn_masks(problem.cell)

    def steps(self, count: int) -> Arrays:
        """One call over the first ``count`` time steps."""
        p, cell = self._problem, self._problem.cell
        x, state = p.x[:count], (p.h_0, p.c_0)
        recurrent, *of_steps = self._masks
        masks = variants.Masks(recurrent, *(None if m is None else m[:, :count] for m in of_steps))
        options: dict[str, Any] = {
            "num_layers": cell.L,
            "num_directions": cell.D,
            "dtype": cell.dtype,
            "cell": variants.Cell(**cell.chosen(variants.Cell._fields)),
            "lengths": np.minimum(cell.lengths, count) if cell.ragged else None,
            "masks": masks,
        }
        y, (h_n, c_n) = reference.forward(x, state, p.parameters, **options)
        if ("merge_mode", "sum") in cell.options:
            y = y[..., : cell.output_size] + y[..., cell.output_size :]
        if ("return_sequences", False) in cell.options:
            y = np.concatenate(list(h_n[-cell.D :]), axis=-1)
        if self._given is None:
            return y, h_n, c_n
        dy, dstate = self._given
        dx, (dh_0, dc_0), dparameters = reference.backward(
            x, state, p.parameters, dy[:count], dstate, **options
        )
        return y, h_n, c_n, dx, dh_0, dc_0, *dparameters.values()

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
    cell = problem.cell
    seconds = expected_seconds(runner.steps, round(sum(cell.lengths) / cell.B))
    if seconds > LONGEST_CALL:
        raise UnsupportedError(
            f"skipped, as one call would take about {seconds:.0f} s, over {LONGEST_CALL:g} s"
        )
    return runner
