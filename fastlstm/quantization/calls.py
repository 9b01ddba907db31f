"""The data that a layer is quantised for, as arrays that it can be called with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastlstm._arguments import RealArray, as_array, as_real_array
from fastlstm._spec import Spec


class Call(NamedTuple):
    """One array of the data."""

    x: RealArray  # (T, B, I) of the layer's dtype, a view where it can be
    is_single: bool  # given as (T, I)


def as_calls(data: Any, spec: Spec, *, finite: bool = True) -> list[Call]:
    """Return the arrays of data.

    Parameters
    ----------
    data : array_like, or iterable of array_like
        One array as for a call, or several.
    spec : Spec
        Of the layer.
    finite : bool
        Whether other numbers are refused.

    Raises
    ------
    TypeError, ValueError
        If an array is none, or no input of the layer; if a number is not finite; if there is no
        step at all.
    """
    calls = [_as_call(name, item, spec, finite) for name, item in _named(data)]
    if not any(call.x.size for call in calls):
        raise ValueError("data: got no steps, expected some")
    return calls


def _named(data: Any) -> Iterable[tuple[str, Any]]:
    """Return the arrays that data holds, and what errors call them."""
    if is_one_array(data):
        return [("data", data)]
    try:
        items = iter(data)
    except TypeError:
        raise TypeError(
            f"data: got {type(data).__name__}, expected an array or an iterable of arrays"
        ) from None
    # What makes one array after the other may make them all in the same memory.
    if items is data:
        items = (np.array(as_array(f"data[{n}]", item)) for n, item in enumerate(items))
    return ((f"data[{n}]", item) for n, item in enumerate(items))


def is_one_array(data: Any) -> bool:
    """Whether data are one array, and not several; TypeError if they can be neither."""
    if isinstance(data, str | bytes | Mapping):
        raise TypeError(
            f"data: got {type(data).__name__}, expected an array or an iterable of arrays"
        )
    if isinstance(data, list | tuple):  # of steps, if not of sequences
        return bool(data) and as_array("data[0]", data[0]).ndim < 2
    return hasattr(data, "__array__") or hasattr(data, "__dlpack__")


def _as_call(name: str, value: npt.ArrayLike, spec: Spec, finite: bool) -> Call:
    x = as_real_array(name, value, spec.dtype)
    I = spec.input_size
    if x.ndim not in (2, 3) or x.shape[-1] != I:
        outer = "B, T" if spec.batch_first else "T, B"
        raise ValueError(f"{name}: got shape {x.shape}, expected ({outer}, {I}) or (T, {I})")
    if finite and not (known := np.isfinite(x)).all():
        place = tuple(map(int, np.unravel_index(known.argmin(), x.shape)))
        raise ValueError(f"{name}: got {x[place]} at {place}, expected finite numbers")
    if x.ndim == 2:
        return Call(x[:, np.newaxis], True)
    return Call(x.swapaxes(0, 1) if spec.batch_first else x, False)
