"""How the two directions of a BiLSTM become one result, and gradients of it theirs.

Names are those of Keras' ``Bidirectional`` layer, with ``mean`` and ``product`` written out.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from fastlstm._arguments import RealArray, as_real_array, shown

#: What a call returns as y: one array, or one for each direction.
Merged: TypeAlias = RealArray | tuple[RealArray, RealArray]

MERGE_MODES = ("concat", "sum", "mean", "product", None)


def as_merge_mode(value: Any, num_directions: int) -> str | None:
    """Return a merge mode, checked.

    Raises
    ------
    ValueError
        If it is none, or there is only one direction to merge.
    """
    if not (value is None or (isinstance(value, str) and value in MERGE_MODES)):
        expected = ", ".join(map(repr, MERGE_MODES))
        raise ValueError(f"merge_mode: got {shown(value)}, expected one of {expected}")
    if num_directions == 1 and value != "concat":
        raise ValueError(
            f"merge_mode: got {shown(value)}, but only a BiLSTM has directions to merge"
        )
    return None if value is None else str(value)


def merged_shape(shape: tuple[int, ...], mode: str | None) -> tuple[int, ...]:
    """Return the shape of the result, or of each of its two arrays, of outputs (..., D*P)."""
    return shape if mode == "concat" else (*shape[:-1], shape[-1] // 2)


def merge(both: RealArray, mode: str | None, out: RealArray | None = None) -> Merged:
    """Return what the two directions' outputs, side by side in (..., 2P), make.

    Parameters
    ----------
    both : ndarray (..., D*P)
    mode : str or None
        None for the two by themselves: views.
    out : ndarray, optional
        Takes the result, if it is one array.
    """
    if mode == "concat":
        if out is None or out is both:
            return both
        out[...] = both
        return out
    forward, reverse = np.split(both, 2, axis=-1)
    if mode is None:
        return forward, reverse
    with np.errstate(all="ignore"):
        if mode == "product":
            return np.multiply(forward, reverse, out=out)
        total: RealArray = np.add(forward, reverse, out=out)
        if mode == "mean":
            total *= 0.5
        return total


def gradient_of_both(dy: Any, both: RealArray | None, mode: str | None) -> RealArray:
    """Return the gradient of both directions' outputs (..., D*P), given that of what they made.

    ``both`` is needed for products alone.
    """
    if mode == "concat":
        gradient: RealArray = dy
        return gradient
    with np.errstate(all="ignore"):
        if mode is None:
            parts = dy
        elif mode == "product":
            assert both is not None
            forward, reverse = np.split(both, 2, axis=-1)
            parts = (dy * reverse, dy * forward)
        else:
            parts = (dy, dy) if mode == "sum" else (dy * 0.5, dy * 0.5)
        return np.concatenate(parts, axis=-1)


def as_gradient(
    dy: Any, shape: tuple[int, ...], mode: str | None, dtype: np.dtype[Any]
) -> Merged | None:
    """Return a gradient of the result, checked: of that shape, or two of it with mode None.

    Raises
    ------
    TypeError, ValueError
        If it does not hold real numbers or is of another shape.
    """
    if dy is None:
        return None
    if mode is not None:
        return _as_shaped("dy", dy, shape, dtype)
    if not isinstance(dy, tuple | list) or len(dy) != 2:
        raise ValueError(
            f"dy: got {type(dy).__name__}, expected a pair, as y is with merge_mode=None"
        )
    forward, reverse = dy
    return _as_shaped("dy[0]", forward, shape, dtype), _as_shaped("dy[1]", reverse, shape, dtype)


def _as_shaped(name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> RealArray:
    array = as_real_array(name, value, dtype)
    if array.shape != shape:
        raise ValueError(f"{name}: got shape {array.shape}, expected that of y, {shape}")
    return array
