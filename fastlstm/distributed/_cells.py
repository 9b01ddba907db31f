"""Columns of tables as NumPy has them: of pandas, of Arrow, and of mappings.

Letters: R rows, T time steps, I input size.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]


def as_cells(name: str, column: Any) -> Any:
    """Return a column of numbers as an array (R,), of sequences as a list of R arrays.

    Raises
    ------
    TypeError, ValueError
        If it holds something else.
    """
    if hasattr(column, "combine_chunks"):  # of Arrow
        column = column.combine_chunks()
        if hasattr(column, "chunks"):
            column = column.chunk(0) if column.num_chunks else column.type.wrap_array([])
    if hasattr(column, "to_numpy_ndarray"):  # tensors of Arrow
        _refuse_nulls(name, column)
        return list(column.to_numpy_ndarray())
    if _is_lists(column):
        return _arrow_lists(name, column)
    if isinstance(column, list | tuple) and any(map(_is_sequence, column)):
        column = objects(column)  # of any lengths
    array = plain(column)
    if array.ndim > 1:
        return list(array)
    if array.dtype.kind == "O":
        if any(map(_is_sequence, array.tolist())):
            return [_as_sequence(name, row, value) for row, value in enumerate(array)]
        try:
            return array.astype(np.float64)  # of numbers, of which some are missing
        except (TypeError, ValueError):
            pass
    if array.dtype.kind not in "biuf":
        raise TypeError(f"features: column {name!r} holds {array.dtype}, expected numbers")
    return array


def plain(column: Any) -> Array:
    """Return a column as NumPy has it: numbers with NaN where there is none."""
    if isinstance(column, np.ndarray):
        return column
    if hasattr(column, "is_null") and hasattr(column, "to_numpy"):  # of Arrow
        try:
            return np.asarray(column.to_numpy(zero_copy_only=False))
        except TypeError:  # chunked
            return np.asarray(column.to_numpy())
    dtype = getattr(getattr(column, "dtype", None), "numpy_dtype", None)
    if dtype is not None and np.dtype(dtype).kind in "biuf" and column.isna().any():
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
    return np.asarray(column)


def _is_sequence(value: Any) -> bool:
    """Tell whether a cell holds more than one number can be: an array, a list, a tensor."""
    if isinstance(value, list | tuple):
        return True
    return hasattr(value, "__array__") and np.ndim(value) > 0


def _as_sequence(name: str, row: int, value: Any) -> Array:
    """Return the sequence in a cell: an array, or lists in each other."""
    if value is None or isinstance(value, float):  # NaN, as pandas has it
        raise ValueError(f"features: column {name!r} has no sequence in row {row}")
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"features: column {name!r} holds a masked array in row {row}, expected one without a "
            "mask (see .filled())"
        )
    try:
        array = np.asarray(value)
        if array.dtype.kind == "O" and array.size:
            if isinstance(array[0], np.ndarray | list | tuple):
                array = np.stack([np.asarray(step, np.float64) for step in array])
            else:
                array = array.astype(np.float64)  # None becomes NaN
    except (TypeError, ValueError) as error:
        raise ValueError(f"features: column {name!r}, row {row}: {error}") from None
    if array.size and array.dtype.kind not in "biuf":
        raise TypeError(f"features: column {name!r} holds {array.dtype} in row {row}")
    return array


def _arrow_lists(name: str, column: Any) -> list[Array]:
    """Return the sequences of a column of Arrow's lists, or lists of lists: views of one array."""
    inner, bounds = _flattened(name, column)
    width = None
    if _is_lists(inner):
        inner, steps = _flattened(name, inner)
        widths = np.unique(np.diff(steps))
        if len(widths) > 1:
            raise ValueError(f"features: column {name!r} has steps of {widths[:10]} numbers")
        width = int(widths[0]) if len(widths) else 0
    values = plain(inner)
    if values.dtype.kind == "O" and all(each is None or each in (0, 1) for each in values):
        values = values.astype(np.float64)  # of nothing at all, or of truths, of which some miss
    if values.dtype.kind not in "biuf":
        raise TypeError(f"features: column {name!r} holds {inner.type}, expected numbers")
    if width is not None:
        values = values.reshape(-1, width) if width else np.empty((bounds[-1], 0))
    return [values[start:end] for start, end in pairwise(bounds)]


def _is_lists(column: Any) -> bool:
    """Tell whether an array of Arrow's holds lists."""
    return hasattr(column, "offsets") or hasattr(getattr(column, "type", None), "list_size")


def _flattened(name: str, column: Any) -> tuple[Any, Array]:
    """Return what is in Arrow's lists end to end, and where each begins and the last one ends."""
    _refuse_nulls(name, column)
    if hasattr(column, "sizes"):  # a view, whose lists lie in any order
        return column.flatten(), np.concatenate([[0], np.cumsum(np.asarray(column.sizes))])
    if hasattr(column, "offsets"):
        bounds = np.asarray(column.offsets)
        return column.flatten(), bounds - bounds[0]
    return column.flatten(), np.arange(len(column) + 1) * column.type.list_size


def _refuse_nulls(name: str, column: Any) -> None:
    """Raise a ValueError if there are rows without a sequence."""
    if column.null_count:
        row = int(np.asarray(column.is_null()).argmax())
        raise ValueError(f"features: column {name!r} has no sequence in row {row}")


def is_missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas.NA is neither true nor false
        return True


def as_times(name: str, column: Any) -> Array:
    """Return a column that orders steps as what NumPy can sort (R,).

    Raises
    ------
    TypeError, ValueError
        If it is no such column, or has gaps.
    """
    if getattr(getattr(column, "dtype", None), "ordered", False):  # categories of pandas
        times = np.asarray(column.cat.codes)
        gaps = times < 0
    elif getattr(getattr(column, "type", None), "ordered", False):  # of Arrow
        times = _places(name, column)
        gaps = times < 0
    else:
        times = plain(column)
        if times.dtype.kind == "O":
            gaps = np.array([is_missing(value) for value in times], np.bool_)
        elif times.dtype.kind in "mMf":
            gaps = np.isnan(times)
        else:
            gaps = np.zeros(len(times), np.bool_)
    if gaps.any():
        raise ValueError(f"time: column {name!r} has no value in row {int(gaps.argmax())}")
    if times.dtype.kind != "O" or not len(times):
        return times
    if all(isinstance(value, str) for value in times):
        return times.astype(np.str_)
    # Dates, decimals, whatever has an order, by their places in it.
    try:
        values = sorted(set(times))
    except TypeError:
        raise TypeError(
            f"time: column {name!r} holds {type(times[0]).__name__}, expected times, numbers or "
            "texts"
        ) from None
    places = {value: place for place, value in enumerate(values)}
    return np.array([places[value] for value in times])


def _places(name: str, column: Any) -> Array:
    """Return the places of Arrow's ordered categories in their order (R,), -1 where there is none.

    Raises
    ------
    ValueError
        If chunks of the column have other categories than each other.
    """
    chunks = getattr(column, "chunks", [column])
    if any(not chunk.dictionary.equals(chunks[0].dictionary) for chunk in chunks):
        raise ValueError(f"time: column {name!r} has chunks whose categories differ, in no order")
    found = [np.asarray(chunk.indices.fill_null(-1)) for chunk in chunks]
    return np.concatenate(found) if found else np.empty(0, np.int64)


def objects(values: Sequence[Any]) -> Array:
    column = np.empty(len(values), object)
    for row, value in enumerate(values):  # or NumPy would look into them
        column[row] = value
    return column
