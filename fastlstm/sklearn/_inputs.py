"""X as an estimator is given it, made sequences of real numbers, with scikit-learn's errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_array, validate_data

Array: TypeAlias = NDArray[Any]
#: (N, T, F), or N arrays (T_i, F).
Inputs: TypeAlias = Array | list[Array]

_FLOATS = (np.float64, np.float32)


def as_inputs(estimator: Any, X: Any, *, reset: bool) -> Inputs:
    """Return X as sequences, after scikit-learn's checks.

    Parameters
    ----------
    estimator : BaseEstimator
        Gets ``n_features_in_`` and ``feature_names_in_``, or has them to compare with.
    X : array_like (N, T) or (N, T, F), DataFrame (N, T), or sequence of N arrays or DataFrames
        The latter (T_i, F), or (T_i,).
    reset : bool
        Whether this is the first X, or one to compare with it.

    Returns
    -------
    array (N, T, F), or list of N arrays (T_i, F)

    Raises
    ------
    TypeError, ValueError
        If X is not as described, holds NaN or infinities, or has other features than the first.
    """
    X = unmasked(X)
    sequences = _listed(X)
    if sequences is None and not reset and estimator._rank == 3 and _is_even(X):
        sequences = X
    if sequences is None and getattr(X, "ndim", None) is None:
        X = X if hasattr(X, "columns") else np.asarray(X)
    if sequences is None and getattr(X, "ndim", 2) != 3:
        # The columns are the steps.
        array: Array = validate_data(estimator, X, reset=reset, dtype=_FLOATS)
        _check_rank(estimator, 2, reset)
        return array[..., np.newaxis]
    if sequences is None:
        array = check_array(X, allow_nd=True, dtype=_FLOATS, input_name="X", estimator=estimator)
        if 0 in array.shape:
            raise ValueError(
                f"Found array with 0 step(s) or feature(s) (shape={array.shape}) while a minimum "
                f"of 1 is required by {type(estimator).__name__}."
            )
        # On rows (steps, F), as it knows nothing of three axes.
        validate_data(estimator, array[0], reset=reset, dtype=None)
        _check_rank(estimator, 3, reset)
        return array
    for i, sequence in enumerate(sequences):
        if not len(sequence):
            raise ValueError(
                f"Found sequence X[{i}] with 0 step(s) while a minimum of 1 is required."
            )
    if any(hasattr(sequence, "columns") for sequence in sequences):  # DataFrames, with names
        checked = [
            validate_data(estimator, sequence, reset=reset and i == 0, dtype=_FLOATS)
            for i, sequence in enumerate(sequences)
        ]
    else:
        arrays = [np.asarray(sequence) for sequence in sequences]
        arrays = [each[:, np.newaxis] if each.ndim == 1 else each for each in arrays]
        first = arrays[0].shape
        for i, each in enumerate(arrays):
            if each.ndim != 2 or each.shape[1:] != first[1:]:
                raise ValueError(
                    f"X[{i}] has shape {each.shape}, but {type(estimator).__name__} is expecting "
                    f"(steps, {first[-1]}) as in X[0]."
                )
        rows = validate_data(estimator, np.concatenate(arrays), reset=reset, dtype=_FLOATS)
        checked = np.split(rows, np.cumsum([len(each) for each in arrays])[:-1])
    _check_rank(estimator, 3, reset)
    return checked


def lengths_of(x: Inputs) -> list[int]:
    """Return the number of steps of each sequence."""
    return [len(each) for each in x] if isinstance(x, list) else [x.shape[1]] * len(x)


def unmasked(value: Any) -> Any:
    """Return what a masked array, or a list of such, hides as NaN; other things as they are.

    scikit-learn would take what lies under the mask for numbers.
    """
    if isinstance(value, list | tuple) and any(isinstance(v, np.ma.MaskedArray) for v in value):
        return [unmasked(each) for each in value]
    if not isinstance(value, np.ma.MaskedArray):
        return value
    hidden = np.ma.getmaskarray(value)
    if not hidden.any():
        return value.data
    if value.dtype.kind not in "biuf":
        raise ValueError(f"got a masked array of {value.dtype} that hides some, expected all")
    return np.where(hidden, np.nan, value.data)


def taken(x: Any, rows: Array | slice) -> Any:
    """Return some items of an array or a list."""
    if isinstance(x, list):
        return x[rows] if isinstance(rows, slice) else [x[i] for i in rows]
    return x[rows]


def _listed(X: Any) -> Sequence[Any] | None:
    """Return the sequences of an X that has one item for each; None of an X that is an array."""
    if isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1:
        X = list(X)
    if not isinstance(X, list | tuple) or not X:
        return None
    if all(getattr(item, "ndim", 0) in (1, 2) and hasattr(item, "__array__") for item in X):
        two = all(item.ndim == 2 for item in X)
        return X if two or len({len(item) for item in X}) > 1 else None
    if all(isinstance(item, list | tuple) for item in X) and len({len(item) for item in X}) > 1:
        return X
    return None


def _is_even(X: Any) -> bool:
    """Whether X is a list of sequences of one feature that happen to be as long as each other."""
    return isinstance(X, list | tuple) and len(X) > 0 and all(np.ndim(item) == 1 for item in X)


def _check_rank(estimator: Any, rank: int, reset: bool) -> None:
    """Raise a ValueError if a later X has other axes than the first."""
    if reset:
        estimator._rank = rank
    elif estimator._rank != rank:
        raise ValueError(
            f"Expected {estimator._rank}D array, got {rank}D array instead: "
            f"{type(estimator).__name__} was fitted with X of "
            + ("(sequences, steps)." if rank == 3 else "(sequences, steps, features).")
        )
