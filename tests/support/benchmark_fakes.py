"""What tests of the benchmark share: a machine, results, a clock set by hand, the right answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fastlstm import reference, variants
from fastlstm.bench import problem
from fastlstm.bench.compare import CellResult, Entry
from fastlstm.bench.grid import Cell
from fastlstm.bench.machine import Machine

TINY = Cell(T=3, B=2, I=5, H=4)
TRAINING = replace(TINY, training=True)
PEEPHOLES = replace(TINY, options=(("peepholes", True),))

MACHINE = Machine(
    cpu="Imaginary CPU",
    family="family 1",
    processors=4,
    caches={"L1d": 32768, "L2": 2097152},
    system="System 1",
    compiler="cc 1.0",
    isa="scalar",
    python="CPython 3.11",
    packages={"fastlstm": "0.1.0", "numpy": "2.0.0", "torch": "2.13.0"},
)


def result_of(cell: Cell, samples: dict[str, list[float]], difference: float = 1e-7) -> CellResult:
    """Result with made-up samples."""
    entries = {name: Entry(values, 1, difference) for name, values in samples.items()}
    return CellResult(cell, entries, {}, "numpy")


def row(text: str, cell: Cell) -> list[str]:
    """Columns of one cell in a printed table."""
    (line,) = [found for found in text.splitlines() if found.startswith(f"| {cell.name} ")]
    return [column.strip() for column in line.strip("|").split("|")]


class FakeClock:
    """A clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def in_float64(p: problem.Problem) -> problem.Arrays:
    """y, h_n, c_n of the reference in float64; in training, the gradients too."""
    cell, state = p.cell, (p.h_0, p.c_0)
    options: dict[str, Any] = {
        "num_layers": cell.L,
        "num_directions": cell.D,
        "dtype": np.float64,
        "cell": variants.Cell(**cell.chosen(variants.Cell._fields)),
        "lengths": cell.lengths,
        "masks": problem.drawn_masks(cell),
    }
    y, (h_n, c_n) = reference.forward(p.x, state, p.parameters, **options)
    if cell.chosen(["merge_mode"]):
        y = y[..., : cell.H] + y[..., cell.H :]
    if cell.chosen(["return_sequences"]):
        y = y[-1]
    if not cell.training:
        return y, h_n, c_n
    dy, dstate = problem.result_gradients(cell)
    dx, (dh_0, dc_0), dparameters = reference.backward(
        p.x, state, p.parameters, dy, dstate, **options
    )
    return y, h_n, c_n, dx, dh_0, dc_0, *(dparameters[name] for name in p.parameters)
