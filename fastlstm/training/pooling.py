"""One vector for a sequence out of those of its steps, and its gradient.

Letters: T time steps, B batch, F features.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastlstm._arguments import RealArray
from fastlstm._steps import Mask

#: Of the steps' features; "last" is the final states, which a layer gives without them.
Pooling: TypeAlias = Literal["last", "last_step", "mean", "max"]
POOLINGS: tuple[Pooling, ...] = ("last", "last_step", "mean", "max")


def pooled(pooling: Pooling, y: RealArray, present: Mask | None) -> RealArray:
    """Return the mean or the largest of each feature over the steps that exist, or the last step's.

    Parameters
    ----------
    pooling : {"last_step", "mean", "max"}
    y : array (T, ..., F)
    present : array of bool (T, B), or None
        Which steps exist; None if all do. Of a sequence without any the result is 0.

    Returns
    -------
    array (..., F)
    """
    if pooling == "mean":
        total: RealArray = np.zeros(y.shape[1:], y.dtype)
        # One step after the other, so that no bit depends on what else is there; NumPy's own sum
        # takes another order where there is one feature.
        for t, step in enumerate(y):
            total += step if present is None else np.where(present[t, :, np.newaxis], step, 0)
        total /= _counts(len(y), present, y.dtype)
        return total
    if not len(y):
        return np.zeros(y.shape[1:], y.dtype)
    if pooling == "last_step":
        if present is None:
            return np.array(y[-1])
        last: RealArray = np.take_along_axis(y, _last_steps(present), axis=0)[0]
        last[~np.logical_or.reduce(present)] = 0
        return last
    candidates = y if present is None else np.where(present[..., np.newaxis], y, -np.inf)
    largest: RealArray = np.asarray(candidates.max(axis=0))
    if present is not None:
        largest[~np.logical_or.reduce(present)] = 0
    return largest


def spread(pooling: Pooling, gradient: RealArray, y: RealArray, present: Mask | None) -> RealArray:
    """Return the gradient (T, ..., F) by y of that (..., F) by what `pooled` made of it.

    That of a largest number goes to the first step that has it.
    """
    dy = np.zeros_like(y)
    if pooling == "mean":
        share = gradient / _counts(len(y), present, y.dtype)
        dy[:] = share if present is None else np.where(present[..., np.newaxis], share, 0)
        return dy
    if pooling == "last_step":
        if present is None:
            dy[-1] = gradient
        else:
            np.put_along_axis(dy, _last_steps(present), gradient[np.newaxis], axis=0)
            dy[~present] = 0  # of a sequence without a step
        return dy
    candidates = y if present is None else np.where(present[..., np.newaxis], y, -np.inf)
    np.put_along_axis(dy, candidates.argmax(axis=0)[np.newaxis], gradient[np.newaxis], axis=0)
    if present is not None:
        dy[~present] = 0  # of a sequence without a step
    return dy


def _last_steps(present: Mask) -> NDArray[np.intp]:
    """Return the place (1, B, 1) of the last step of each sequence, whose steps are the first."""
    places: NDArray[np.intp] = np.maximum(present.sum(axis=0, dtype=np.intp) - 1, 0)
    return places[np.newaxis, :, np.newaxis]


def _counts(steps: int, present: Mask | None, dtype: np.dtype[Any]) -> RealArray:
    """Return the number of steps to divide by, of each sequence (B, 1), or of all ()."""
    if present is None:
        return np.array(max(steps, 1), dtype)
    counts: RealArray = np.maximum(present.sum(axis=0), 1)[:, np.newaxis].astype(dtype)
    return counts
