"""Arrays as other libraries hold them: tensors, tables, numbers that NumPy itself has not.

None of these libraries is imported: their objects are told by the module of their class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

#: ``dtype.isbuiltin`` of types that another package has added to NumPy's.
_REGISTERED = 2

#: How deep tensors may lie in lists, and how many columns an error lists.
_DEEPEST, _LISTED = 3, 10


def to_numpy(value: Any) -> npt.NDArray[Any]:
    """Return value as a NumPy array, without a copy where none is needed.

    Parameters
    ----------
    value : array_like
        A tensor that requires a gradient is detached: no gradient flows through this package.
        bfloat16, and floats of 8 bits and fewer, become float32, which is exact. Columns of a table
        are those of the last axis, and may be nullable where nothing is missing.

    Raises
    ------
    TypeError
        If a column of a table holds no real numbers, or a tensor is packed.
    ValueError
        If a value of a nullable column is missing.
    Exception
        Whatever another library raises.
    """
    if type(value) is np.ndarray and value.dtype.isbuiltin != _REGISTERED:
        return value
    columns = None
    if type(value).__module__ != "builtins":
        if _is_of(value, "torch"):
            value = _as_plain_tensor(value)
        columns = columns_of(value)
    array = _nested(value) if columns is None else _stacked(value, columns)
    return _widened(array, value)


def precision_name(value: Any) -> str | None:
    """Return "float16" of ``torch.float16``, "float64" of others and their like, else None."""
    if isinstance(value, str | bytes):
        return None
    name = getattr(value, "name", None)
    text = name if isinstance(name, str) else str(value)
    last = text.rpartition(".")[2].lower()
    return last if last in ("float16", "float32", "float64") else None


def lengths_of(value: Any, width: int) -> list[int] | None:
    """Return the lengths of sequences (T, width) in a list, or None if it is not one of them.

    With a width of 1 they may be (T,).
    """
    if isinstance(value, np.ndarray) and value.dtype == np.object_ and value.ndim == 1:
        value = value.tolist()
    if not isinstance(value, list | tuple) or not value:
        return None
    lengths = []
    for item in value:
        try:
            shape = to_numpy(item).shape
        except Exception:  # it makes no array
            return None
        if not (shape[1:] == (width,) or (width == 1 and len(shape) == 1)):
            return None
        lengths.append(shape[0])
    return lengths


def _is_of(value: Any, *packages: str) -> bool:
    """Tell whether the class of value, or one that it inherits from, is of one of the packages."""
    bases = type(value).__mro__
    return any(str(base.__module__).partition(".")[0] in packages for base in bases)


def _as_plain_tensor(value: Any) -> Any:
    """Return a tensor of PyTorch as NumPy takes it; anything else of that package as it is."""
    if type(value).__name__ == "PackedSequence":
        raise TypeError(
            "it is a PackedSequence: x, lengths = torch.nn.utils.rnn.pad_packed_sequence(x, "
            "batch_first=layer.batch_first) undoes that, and a call takes the lengths=lengths"
        )
    if not hasattr(value, "detach"):
        return value
    if value.is_nested:
        raise TypeError(
            "it is a nested tensor: pad it, torch.nested.to_padded_tensor(x, 0.0), and give a call "
            "the lengths="
        )
    plain = value.detach().resolve_neg()
    exact = ("torch.float16", "torch.float32", "torch.float64")
    short = plain.dtype.is_floating_point and str(plain.dtype) not in exact
    return plain.float() if short else plain


def _nested(value: Any, depth: int = 0) -> npt.NDArray[Any]:
    """Return an array, or nested sequences, that may have tensors in them, as an array."""
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        return np.from_dlpack(value)
    try:
        return np.asarray(value)
    except Exception:
        if not isinstance(value, list | tuple) or depth == _DEEPEST:
            raise
        if not any(isinstance(item, list | tuple) or _is_of(item, "torch") for item in value):
            raise
    items = (_as_plain_tensor(item) if _is_of(item, "torch") else item for item in value)
    return np.asarray([_nested(item, depth + 1) for item in items])


def _widened(array: npt.NDArray[Any], value: Any) -> npt.NDArray[Any]:
    """Return numbers that NumPy has not, of the package ml_dtypes, as some that it has."""
    kinds = {"bfloat": np.float32, "float": np.float32, "uint": np.uint8, "int": np.int8}
    if array.dtype.isbuiltin == _REGISTERED:
        for start, dtype in kinds.items():
            if array.dtype.name.startswith(start):
                with np.errstate(all="ignore"):
                    return array.astype(dtype)
    if array.dtype.kind in "iu" and "float" in str(getattr(value, "dtype", "")):
        # Some libraries hand out the bits where NumPy has no such type.
        raise TypeError(f"its {value.dtype} come as {array.dtype}: convert it to float32 first")
    return array


# Tables


def columns_of(value: Any) -> list[tuple[Any, Any]] | None:
    """Return the columns of a table with their names, one of a series; None if it is neither."""
    if _is_of(value, "pandas"):
        if hasattr(value, "iloc") and hasattr(value, "columns"):
            return [(name, value.iloc[:, k]) for k, name in enumerate(value.columns)]
        is_series = hasattr(value, "dtype") and hasattr(value, "isna")
        return [(getattr(value, "name", None), value)] if is_series else None
    if _is_of(value, "polars", "pyarrow"):
        if hasattr(value, "get_columns"):
            return [(column.name, column) for column in value.get_columns()]
        if hasattr(value, "column_names") and hasattr(value, "columns"):
            return list(zip(value.column_names, value.columns, strict=True))
        return [(getattr(value, "name", None), value)] if hasattr(value, "is_null") else None
    return None


def _stacked(value: Any, columns: Sequence[tuple[Any, Any]]) -> npt.NDArray[Any]:
    """Return columns side by side, or the one of a series as it is."""
    arrays, wrong = [], []
    for name, column in columns:
        label = f"{'series' if column is value else 'column'} {name!r}"
        if rows := list(_missing(column)):
            more = f", the first of {len(rows)} such rows" if len(rows) > 1 else ""
            raise ValueError(f"{label} has no value in row {rows[0]} (from 0){more}")
        array = _as_numbers(column)
        if array.dtype.kind in "biuf":
            arrays.append(array)
        else:
            kind = getattr(column, "dtype", getattr(column, "type", array.dtype))
            wrong.append(f"{label} holds {kind}")
    if wrong:
        listed = ", ".join(wrong[:_LISTED]) + (", ..." if len(wrong) > _LISTED else "")
        raise TypeError(f"{listed}, expected real numbers")
    if len(columns) == 1 and columns[0][1] is value:
        return arrays[0]
    return np.column_stack(arrays) if arrays else np.empty((len(value), 0))


def _missing(column: Any) -> Iterator[int]:
    """Yield the rows in which a nullable column has no value; a NaN is a value."""
    if hasattr(column, "is_null"):  # of polars, of pyarrow
        yield from np.flatnonzero(np.asarray(column.is_null())).tolist()
    elif hasattr(column.dtype, "numpy_dtype"):  # nullable columns of pandas
        yield from np.flatnonzero(np.asarray(column.isna())).tolist()


def _as_numbers(column: Any) -> npt.NDArray[Any]:
    """Return a column without missing values as an array of whatever dtype."""
    array = _widened(np.asarray(column), column)
    dtype = getattr(getattr(column, "dtype", None), "numpy_dtype", None)
    if array.dtype.kind == "O" and dtype is not None and np.dtype(dtype).kind in "biuf":
        return np.asarray(column, dtype)
    return array
