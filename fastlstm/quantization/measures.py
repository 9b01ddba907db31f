"""Sums over what two layers gave, a chunk at a time, and the figures that they come to.

Letters: T time steps, B batch, N numbers of a step, K numbers of a row that is quantised.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm._arguments import RealArray
from fastlstm.reference.digits import LARGEST, SMALLEST_SCALE


class Errors(NamedTuple):
    """How far numbers are from those of float32.

    Attributes
    ----------
    largest : float
        The largest magnitude of a difference.
    rms : float
        The root of the mean squared difference.
    relative : float
        `rms` in units of the spread of the numbers of float32, their standard deviation. NaN where
        they have none.
    """

    largest: float
    rms: float
    relative: float


class Range(NamedTuple):
    """What is used of the range of integers from -M to M by what is quantised at each step.

    Nothing is cut off: a row's own largest magnitude becomes M (with 24 bits, where float32 rounds,
    about that).

    Attributes
    ----------
    used : float
        Root mean square of the integers, as a share of M. A small one is a row with a number far
        beyond the others, and few bits for these: 0.01 of 8 bits is one step.
    saturated : float
        Share of the numbers that are M or -M. At least one a step is.
    lost : float
        Share of the numbers other than 0 that became 0.
    """

    used: float
    saturated: float
    lost: float


class ErrorSums:
    """Sums of the differences of two arrays, over parts of the steps.

    Parameters
    ----------
    edges : array of int (parts + 1,)
        The first step of each part, and the end.
    """

    def __init__(self, edges: NDArray[np.intp]) -> None:
        parts = len(edges) - 1
        self._edges = edges
        self._largest = np.zeros(parts)
        self._squares = np.zeros(parts)
        self._counts = np.zeros(parts, np.int64)
        self._mean = self._deviations = 0.0
        self.left_out = 0

    def add(
        self, exact: RealArray, other: RealArray, start: int, present: NDArray[np.bool_] | None
    ) -> None:
        """Add arrays (T, B, N) whose first step is `start`; of the steps that are present (T, B).

        What is not finite in one of them is left out, and counted.
        """
        counted = np.isfinite(exact) & np.isfinite(other)
        there = counted.size
        if present is not None:
            counted &= present[:, :, np.newaxis]
            there = int(np.count_nonzero(present)) * exact.shape[-1]
        values = exact[counted].astype(np.float64)
        self._add_to_spread(values)
        error = np.zeros(exact.shape)
        error[counted] = np.abs(other[counted] - values)
        steps = np.arange(start, start + len(exact))
        part = np.searchsorted(self._edges, steps, side="right") - 1
        axes = (1, 2)
        np.maximum.at(self._largest, part, error.max(axis=axes, initial=0))
        np.add.at(self._squares, part, np.square(error).sum(axis=axes))
        np.add.at(self._counts, part, np.count_nonzero(counted, axis=axes))
        self.left_out += there - values.size

    def _add_to_spread(self, values: NDArray[np.float64]) -> None:
        """Merge mean and sum of squared deviations with those of more numbers (Chan et al.)."""
        if values.size == 0:
            return
        before = int(self._counts.sum())
        mean = float(values.mean())
        share, difference = values.size / (before + values.size), mean - self._mean
        self._deviations += float(np.square(values - mean).sum())
        self._deviations += difference * difference * before * share
        self._mean += difference * share

    @property
    def total(self) -> Errors:
        """Of all steps."""
        return self._errors(slice(None))

    def parts(self) -> list[tuple[int, int, Errors]]:
        """First step, end and errors of each part, relative to the spread over all steps."""
        ends = self._edges.tolist()
        return [
            (ends[part], ends[part + 1], self._errors(slice(part, part + 1)))
            for part in range(len(self._counts))
        ]

    def _errors(self, part: slice) -> Errors:
        count = int(self._counts[part].sum())
        if count == 0:
            return Errors(math.nan, math.nan, math.nan)
        rms = math.sqrt(float(self._squares[part].sum()) / count)
        spread = math.sqrt(self._deviations / int(self._counts.sum()))
        relative = rms / spread if spread > 0 else math.nan
        return Errors(float(self._largest[part].max()), rms, relative)


class RangeSums:
    """Sums over the integers that rows are quantised to.

    Parameters
    ----------
    bits : {8, 16, 24}
    """

    def __init__(self, bits: int) -> None:
        self._largest = np.float32(LARGEST[bits])
        self._squares = 0.0
        self._count = self._saturated = self._nonzero = self._lost = 0

    def add(self, rows: RealArray, present: NDArray[np.bool_] | None) -> None:
        """Add rows (T, B, K) of float32, of the steps that are present (T, B).

        Rows with a number that is not finite have no integers, and are left out.
        """
        flat = rows.reshape(-1, rows.shape[-1])
        counted = np.isfinite(flat).all(axis=-1)
        if present is not None:
            counted &= present.reshape(-1)
        flat = flat[counted]
        scale = np.maximum(np.abs(flat).max(axis=-1, initial=0), np.float32(SMALLEST_SCALE))
        q = np.rint(flat * (self._largest / scale)[:, np.newaxis])
        self._squares += float(np.square(q / self._largest, dtype=np.float64).sum())
        self._count += q.size
        self._saturated += int(np.count_nonzero(np.abs(q) >= self._largest))
        self._nonzero += int(np.count_nonzero(flat))
        self._lost += int(np.count_nonzero((q == 0) & (flat != 0)))

    @property
    def total(self) -> Range:
        """Of all rows."""
        if self._count == 0:
            return Range(math.nan, math.nan, math.nan)
        return Range(
            math.sqrt(self._squares / self._count),
            self._saturated / self._count,
            self._lost / self._nonzero if self._nonzero else 0.0,
        )
