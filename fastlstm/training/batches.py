"""A batch on its way through a network: to the layer, to the head, and back.

The layer takes steps that exist, the first ones of each sequence. The head and the losses take one
row for each such step, time by time: in that order sums have the bits that they have without
padding, in either layout.

Letters: T time steps, B batch, I input size, F features, N rows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastlstm import _arguments
from fastlstm._arguments import RealArray
from fastlstm._ragged import Rows
from fastlstm._steps import Mask, Steps, as_steps
from fastlstm.training.checks import Array, as_array


class PaddedBatch:
    """The inputs of a batch, and which of its steps exist.

    Parameters
    ----------
    x : array_like (T, B, I), with batch_first (B, T, I); or without a batch (T, I)
    lengths, mask : array_like or None
        As `Sequences` takes them.
    batch_first : bool

    Attributes
    ----------
    x : array_like
        As the layer takes it, with `lengths`.
    outer : tuple of int
        (T, B), (B, T) or (T,): of x as it was given.
    lengths : (B,) or None
        None if there is no padding.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    """

    def __init__(self, x: Any, lengths: Any, mask: Any, batch_first: bool) -> None:
        x = _arguments.as_array("x", x)
        self.x: Any = x
        self.outer = x.shape[:-1]
        self.lengths: Rows | None = None
        self._batch_first = batch_first and x.ndim == 3
        self._steps: Steps | None = None
        self._present: Mask | None = None  # (T, B) of the steps that the layer takes
        if lengths is None and mask is None:
            return
        array = as_array("x", x, "biuf", "real numbers")
        if array.ndim != 3:
            raise ValueError(f"x: got shape {array.shape}, expected a batch")
        T, B = self.time_first(array).shape[:2]
        self._steps = as_steps(lengths, mask, (T, B), batch_first)
        assert self._steps is not None
        gathered = self._steps.gather(self.time_first(array))
        self.x = self.time_first(gathered)
        present = self._steps.present(len(gathered))
        if not present.all():
            self.lengths, self._present = self._steps.lengths, present

    @property
    def sequences(self) -> tuple[int, ...]:
        """(B,), or () without a batch."""
        one: tuple[int, ...] = self.outer[:1] if self._batch_first else self.outer[1:]
        return one

    def answers(self, each_step: bool) -> int:
        """How many answers there are: to each step that exists, or to each sequence."""
        if not each_step:
            return math.prod(self.sequences)
        return math.prod(self.outer) if self._steps is None else int(self._steps.lengths.sum())

    @property
    def taken(self) -> Mask | None:
        """Where a step exists, (T, B) of those that the layer takes; None if all do."""
        return self._present

    def present(self) -> Mask | None:
        """Where a step exists, as the caller has it; None if all do."""
        if self._steps is None:
            return None
        present = np.zeros(self.outer, np.bool_)
        self._steps.scatter(np.True_, self.time_first(present))
        return present

    def rows_of_given(self, array: Array) -> Array:
        """Return what the caller has at each step, (T, B, ...), as rows (N, ...)."""
        if array.ndim < 2 or not (self._batch_first or self._steps):
            return array
        array = self.time_first(array)
        return self._rows(array if self._steps is None else self._steps.gather(array))

    def rows_before(self, array: Array, lag: int) -> Array:
        """Return what the caller has (T, B, ...) so many steps before each, as `rows_of_given`.

        NaN where there is no such step. Steps that don't exist are not counted.
        """
        array = self.time_first(array)
        array = array if self._steps is None else self._steps.gather(array)
        before = np.full(array.shape, np.nan)
        before[lag:] = array[:-lag]
        return self._rows(before)

    def rows_of_made(self, features: Array) -> Array:
        """Return what the layer makes, (T, B, F), as rows: (N, F), or (T, B, F) without padding."""
        return self._rows(self.time_first(features)) if features.ndim == 3 else features

    def as_made(self, rows: RealArray) -> RealArray:
        """Return rows as the layer has them: of steps that don't exist zeros."""
        if self._present is not None:
            made = np.zeros((*self._present.shape, rows.shape[-1]), rows.dtype)
            made[self._present] = rows
            rows = made
        return self.time_first(rows) if rows.ndim == 3 else rows

    def as_given(self, rows: RealArray) -> RealArray:
        """Return rows as the caller has steps, (T, B, ...): of those that don't exist zeros."""
        if self._steps is None:
            return np.ascontiguousarray(self.time_first(rows)) if rows.ndim == 3 else rows
        given = np.zeros((*self.outer, rows.shape[-1]), rows.dtype)
        self._steps.scatter(rows.reshape(-1, rows.shape[-1]), self.time_first(given))
        return given

    def _rows(self, array: Array) -> Array:
        return np.ascontiguousarray(array) if self._present is None else array[self._present]

    def time_first(self, array: Array) -> Array:
        """Return an array (T, B, ...) of one in the layout of x, or the other way: a view."""
        return array.swapaxes(0, 1) if self._batch_first else array
