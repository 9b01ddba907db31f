"""What the tests of the benchmark share: a clock that is set by hand, and the right answer."""

from __future__ import annotations

import numpy as np

from fastlstm import reference
from fastlstm.bench import problem


class FakeClock:
    """A clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def in_float64(p: problem.Problem) -> problem.Arrays:
    """y, h_n, c_n of the reference in float64."""
    y, (h_n, c_n) = reference.forward(
        p.x,
        (p.h_0, p.c_0),
        p.parameters,
        num_layers=p.cell.L,
        num_directions=p.cell.D,
        dtype=np.float64,
    )
    return y, h_n, c_n
