"""y and sample weights as an estimator is given them, made what a network learns from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_array, check_consistent_length

from fastlstm.sklearn._inputs import Array, Inputs, lengths_of, unmasked

Float64 = NDArray[np.float64]


def check_given(estimator: Any, x: Inputs, y: Any) -> None:
    """Raise a ValueError unless there is a y for each sequence."""
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target y "
            "is None."
        )
    check_consistent_length(x, y)
    if estimator.each_step or not isinstance(y, list | tuple) or not np.ndim(y[0]):
        return
    first = np.shape(y[0])
    if others := [np.shape(each) for each in y if np.shape(each) != first]:
        raise ValueError(
            f"y has answers of shapes {first} and {others[0]}, expected one for each sequence; "
            "those for each step take each_step=True"
        )


def flat(estimator: Any, x: Inputs, y: Any) -> Array:
    """Return answers at each step, (N, T, ...) or N of (T_i, ...), as rows (M, ...) of all steps.

    Raises
    ------
    ValueError
        If there is not one for each step of x.
    """
    parts = [np.asarray(each) for each in y]
    for i, (part, length) in enumerate(zip(parts, lengths_of(x), strict=True)):
        if part.ndim not in (1, 2) or len(part) != length or part.shape[1:] != parts[0].shape[1:]:
            raise ValueError(
                f"y[{i}] has shape {part.shape}, but {type(estimator).__name__} with "
                f"each_step=True is expecting an answer for each of {length} steps."
            )
    return np.concatenate(parts)


def unflat(x: Inputs, rows: Array) -> Any:
    """Undo `flat`: the layout of x."""
    if isinstance(x, list):
        return np.split(rows, np.cumsum(lengths_of(x))[:-1])
    return rows.reshape(*x.shape[:2], *rows.shape[1:])


def as_weights(x: Inputs, weights: Any) -> Float64 | None:
    """Return a sample weight for each sequence (N,), or None.

    Raises
    ------
    ValueError
        If they are not finite, below 0, all 0, or not one for each.
    """
    if weights is None:
        return None
    array: Float64 = check_array(
        unmasked(weights), ensure_2d=False, dtype=np.float64, input_name="sample_weight"
    )
    if array.ndim != 1:
        raise ValueError(f"Sample weights must be 1D array or scalar, got {array.ndim}D array.")
    if array.shape != (len(x),):
        raise ValueError(f"sample_weight.shape == {array.shape}, expected {(len(x),)}!")
    if (array < 0).any():
        raise ValueError("Negative values in data passed to `sample_weight`")
    if not array.any():
        raise ValueError("Sample weights must contain at least one non-zero number.")
    return array


def moments(rows: Array, weights: Array | None) -> tuple[Float64, Float64]:
    """Return mean and standard deviation (C,) of rows (M, C), by their weights (M,).

    Those of a constant are itself and 1.
    """
    rows = rows.astype(np.float64, copy=False)
    if weights is not None:
        rows, weights = rows[weights > 0], weights[weights > 0]
    mean = np.average(rows, axis=0, weights=weights)
    variance = np.average(np.square(rows - mean), axis=0, weights=weights)
    # Of a constant such as 0.1 the mean is rounded, and so the variance is not quite 0.
    constant = rows.max(axis=0) == rows.min(axis=0)
    return mean, np.where(constant | (variance == 0), 1.0, np.sqrt(variance))
