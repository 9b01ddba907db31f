"""Which steps of padded sequences exist: lengths, or a mask with padding in front and gaps.

A step that does not exist is no step of zeros: the layer never sees it, and the next one follows
the last one that exists. Layers take `lengths`; a mask becomes lengths by moving the steps that
exist to the front, in order.

Letters: T time steps, B batch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastlstm._arguments import as_array
from fastlstm._ragged import Rows, as_lengths

Mask = npt.NDArray[np.bool_]


class Steps(NamedTuple):
    """The steps of B sequences that exist."""

    lengths: Rows  # (B,): how many each sequence has
    order: Rows | None  # (T, B): at t where its step t lies; None if the first ones are there

    @property
    def longest(self) -> int:
        """Steps of the longest sequence."""
        return int(self.lengths.max(initial=0))

    def present(self, steps: int) -> Mask:
        """Return a mask (steps, B) of what `gather` moved to the front."""
        return np.arange(steps)[:, np.newaxis] < self.lengths

    def gather(self, array: npt.NDArray[Any], rows: Any = slice(None)) -> npt.NDArray[Any]:
        """Return what (T, B, ...) has of some sequences, the steps of each moved to the front.

        There are as many steps as the longest of them has, but one at least.
        """
        T = max(int(self.lengths[rows].max(initial=0)), 1)
        if self.order is None:
            return array[:T][:, rows]
        order = self.order[:T, rows]
        order = order.reshape(*order.shape, *[1] * (array.ndim - 2))
        return np.take_along_axis(array[:, rows], order, axis=0)

    def scatter(self, rows: Any, out: npt.NDArray[Any]) -> None:
        """Write rows (N, ...), or a scalar, of `present` steps to where they lie in (T, B, ...)."""
        times, sequences = np.nonzero(self.present(max(self.longest, 1)))
        if self.order is not None:
            times = self.order[times, sequences]
        out[times, sequences] = rows


def as_steps(lengths: Any, mask: Any, shape: tuple[int, int], batch_first: bool) -> Steps | None:
    """Return which steps exist; None if neither lengths nor mask are given.

    Parameters
    ----------
    lengths : array_like (B,) of int, or int, or None
        One number is that of all sequences.
    mask : array_like of bool, or of 0 and 1, or None
        (T, B), or (B, T) with ``batch_first``.
    shape : (T, B)

    Raises
    ------
    TypeError, ValueError
        If both are given, or one is not as described.
    """
    T, B = shape
    if lengths is not None and mask is not None:
        raise ValueError("lengths, mask: got both, expected one of them")
    if lengths is not None:
        array = as_array("lengths", lengths)
        if array.shape == ():
            array = np.repeat(array, B)
        if array.shape == (T,) != (B,):
            raise ValueError(
                f"lengths: got shape {array.shape}, expected ({B},), one of each sequence; "
                f"{other_layout(batch_first)}"
            )
        return Steps(as_lengths(array, T, B), None)
    if mask is None:
        return None
    exists = as_mask(mask, (B, T) if batch_first else (T, B))
    exists = exists.swapaxes(0, 1) if batch_first else exists
    counts: Rows = exists.sum(axis=0, dtype=np.intp)
    steps = Steps(counts, None)
    if np.array_equal(exists, steps.present(T)):
        return steps
    order: Rows = np.argsort(~exists, axis=0, kind="stable")
    return Steps(counts, order[: max(steps.longest, 1)])


def as_mask(value: Any, shape: tuple[int, ...]) -> Mask:
    """Return value as an array of booleans, True where a step exists."""
    array = as_array("mask", value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"mask: got values of dtype {array.dtype}, expected booleans")
    if array.shape != shape:
        raise ValueError(f"mask: got shape {array.shape}, expected {shape}, one of each step")
    exists: Mask = array != 0
    if array.dtype != np.bool_ and not np.array_equal(exists, array):
        raise ValueError("mask: got other numbers than 0 and 1, expected booleans")
    return exists


def other_layout(batch_first: bool) -> str:
    """Return what to say where shapes fit the layout that was not asked for."""
    if batch_first:
        return "the shapes fit without batch_first=True"
    return "the shapes fit with batch_first=True"
