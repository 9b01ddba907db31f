"""The numbers of a cell: weights, input and states, the same for every contestant."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastlstm import variants
from fastlstm._masks import draw, is_random
from fastlstm._parameters import parameter_shapes
from fastlstm._spec import Spec

from .grid import Cell

Array = NDArray[np.floating]
Arrays = tuple[Array, ...]


MASK_SEED = 0
"""From which the masks of every recorded call are drawn anew, the same ones."""


@dataclass(frozen=True)
class Problem:
    """Weights and data of one cell, all in the cell's dtype and C-contiguous.

    Attributes
    ----------
    cell : Cell
    x : ndarray, (T, B, I)
        Sequences of different lengths are padded with numbers like all others.
    h_0, c_0 : ndarray, (L*D, B, P), (L*D, B, H)
        Non-zero and different from each other: a contestant that mixes them up is found out.
    parameters : dict
        PyTorch's names and shapes: weight_ih_l0 (4H, I), weight_hh_l0 (4H, H), bias_ih_l0 and
        bias_hh_l0 (4H,), then ``_reverse`` and the layers above; gates i, f, g, o. Those of
        variants as in :func:`fastlstm._parameters.parameter_shapes`.
    """

    cell: Cell
    x: NDArray[np.floating]
    h_0: NDArray[np.floating]
    c_0: NDArray[np.floating]
    parameters: dict[str, NDArray[np.floating]]


def suffixes(cell: Cell) -> list[tuple[int, str]]:
    """(layer, suffix of the parameter names) for every layer and direction, (L*D,) of them."""
    ways = ("", "_reverse")[: cell.D]
    return [(layer, f"_l{layer}{way}") for layer in range(cell.L) for way in ways]


def _spec(cell: Cell) -> Spec:
    return Spec(
        *(cell.I, cell.H, cell.L, cell.D),
        cell=variants.Cell(**cell.chosen(variants.Cell._fields)),
        rates=variants.Rates(**cell.chosen(variants.Rates._fields)),
        dtype=np.dtype(cell.dtype),
        **cell.chosen(Spec._fields),
    )


def make_problem(cell: Cell, seed: int = 0) -> Problem:
    """Random weights and data, fixed by the cell's name and the seed.

    Weights and biases are uniform in ±1/sqrt(H), PyTorch's initialisation; x is standard normal.
    Times do not depend on the values (no contestant has a path for zeros), but the check that
    all contestants agree does: nothing here is zero or constant.
    """
    rng = np.random.default_rng([seed, zlib.crc32(cell.name.encode())])
    spec, bound = _spec(cell), 1.0 / np.sqrt(cell.H)

    def uniform(*shape: int) -> NDArray[np.floating]:
        return rng.uniform(-bound, bound, shape).astype(cell.dtype)

    parameters = {name: uniform(*shape) for name, shape in parameter_shapes(spec)}
    states = (cell.L * cell.D, cell.B)
    return Problem(
        cell=cell,
        x=rng.standard_normal((cell.T, cell.B, cell.I)).astype(cell.dtype),
        h_0=rng.uniform(-0.9, 0.9, (*states, cell.output_size)).astype(cell.dtype),
        c_0=rng.uniform(-1.8, 1.8, (*states, cell.H)).astype(cell.dtype),
        parameters=parameters,
    )


def result_gradients(cell: Cell, seed: int = 0) -> tuple[Array, tuple[Array, Array]]:
    """Random gradients of a training cell's loss with respect to its results.

    Returns dy (T, B, D*P), dh_n (L*D, B, P) and dc_n (L*D, B, H): standard normal, in the cell's
    dtype, fixed by the cell's name and the seed.
    """
    rng = np.random.default_rng([seed, zlib.crc32(cell.name.encode()), 1])
    P, state = cell.output_size, (cell.L * cell.D, cell.B)

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(cell.dtype)

    return normal(cell.T, cell.B, cell.D * P), (normal(*state, P), normal(*state, cell.H))


def drawn_masks(cell: Cell, seed: int = MASK_SEED) -> variants.Masks:
    """Return what fastlstm draws for a training cell, where it is recorded with this seed."""
    spec = _spec(cell)
    if not (cell.training and is_random(spec)):
        return variants.NO_MASKS
    rows_of = [np.arange(n) * cell.B + b for b, n in enumerate(cell.lengths)]
    drawn = draw(spec, np.random.default_rng(seed), rows_of, cell.T * cell.B)
    masks = drawn.shaped((cell.T, cell.B)).masks
    assert masks is not None
    return masks


_TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


def tolerance(cell: Cell) -> float:
    """Largest relative difference that passes for rounding.

    It tells a wrong result from another order of summation or another approximation of tanh.  In
    training it is ten times as large: gradients of parameters are sums over T*B rows, up to 93,440
    here, and adding those up in float32 one by one is off by 1e-5.  It is no accuracy claim: the
    tests hold fastlstm to much less.
    """
    return _TOLERANCE[cell.dtype] * (10 if cell.training else 1)


def difference(got: Arrays, base: Arrays) -> float:
    """Largest absolute difference of any result, each relative to its scale max|base|.

    Parameters
    ----------
    got, base : tuple of ndarray
        What ``arrays()`` of two contestants returned.

    Returns
    -------
    float
        Infinity if a shape differs; NaN if a NaN is involved.
    """
    worst = 0.0
    for one, other in zip(got, base, strict=True):
        if one.shape != other.shape:
            return float("inf")
        scale = float(np.max(np.abs(other), initial=0.0)) or 1.0
        gap = np.abs(one.astype(np.float64) - other.astype(np.float64))
        relative = float(np.max(gap, initial=0.0)) / scale
        if np.isnan(relative):
            return relative
        worst = max(worst, relative)
    return worst


def agrees(relative_difference: float, cell: Cell) -> bool:
    """Whether a difference passes for rounding; NaN never does."""
    return relative_difference <= tolerance(cell)
