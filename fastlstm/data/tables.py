"""Columns of tables by their names, whoever made the table.

Tables of pandas, polars and pyarrow are told by the module of their class (`fastlstm._foreign`),
and their columns are asked for as NumPy arrays, which each of them gives by itself. So nothing is
imported, and nothing has to be installed: an adapter such as narwhals would be one dependency
more, and Arrow's C stream needs a package that decodes it.

Letters: R rows.
"""

from __future__ import annotations

import datetime
import numbers
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastlstm import _foreign

Float64: TypeAlias = NDArray[np.float64]
#: Of time: datetime64[us], int64 or float64.
Times: TypeAlias = NDArray[Any]

#: How many names an error lists.
_LISTED = 20

#: Text that NumPy reads as the time that it is. Of other text it makes times that nobody meant: of
#: "20240131" a year, of "today" today, of an empty one NaT.
_PLAIN = re.compile(r"\d{4}(-\d\d(-\d\d([T ]\d\d(:\d\d(:\d\d(\.\d+)?)?)?)?)?)?")


class Table:
    """Columns of the same length, by name.

    Parameters
    ----------
    frame : table or array_like
        A DataFrame of pandas or polars, a table of pyarrow, a mapping of names to arrays (R,), a
        structured array (R,), or an array (R, C) or (R,), whose columns are called "0", "1", ...
        What NumPy's masked arrays mask is missing.

    Attributes
    ----------
    names : list of str
    rows : int
        R.

    Raises
    ------
    TypeError, ValueError
        If it is none of these, columns differ in length, or two have the same name.
    """

    def __init__(self, frame: Any) -> None:
        columns = _named_columns(frame)
        self.names = [name for name, _ in columns]
        if twice := [name for name in self.names if self.names.count(name) > 1]:
            raise ValueError(f"frame: has several columns {twice[0]!r}, expected names that differ")
        self._columns = dict(columns)
        lengths = {name: len(column) for name, column in columns}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name!r} {n}" for name, n in list(lengths.items())[:_LISTED])
            raise ValueError(f"frame: columns differ in length: {listed}")
        self.rows = next(iter(lengths.values()), 0)
        if not self.rows:
            raise ValueError("frame: has no rows, expected some")
        index = getattr(frame, "index", None) if _is_pandas(frame) else None
        self._index = index if index is not None and is_time(index) else None

    @property
    def has_index_of_times(self) -> bool:
        """Whether it is one of pandas whose index holds times."""
        return self._index is not None

    def column(self, argument: str, name: str) -> Any:
        """Return a column as it is; ValueError that begins with the argument if there is none."""
        if name in self._columns:
            return self._columns[name]
        listed = ", ".join(map(repr, self.names[:_LISTED]))
        more = ", ..." if len(self.names) > _LISTED else ""
        raise ValueError(f"{argument}: there is no column {name!r}, there are {listed}{more}")

    def numbers(self, argument: str, name: str) -> Float64:
        """Return a column as float64 (R,), NaN where there is no value.

        Raises
        ------
        TypeError
            If it holds something else than real numbers; the first such value is named.
        ValueError
            If there is no such column, or a number is infinite.
        """
        column = self.column(argument, name)
        array = _as_array(column)
        if array.dtype.kind in "biuf":
            values: Float64 = array.astype(np.float64)
            values[_masked(column, array)] = np.nan
        elif array.dtype.kind in "OUST":
            values = _numbers_of_objects(argument, name, array, _gaps(column, array))
        else:
            other = f"; time={name!r} takes it for the time" if array.dtype.kind == "M" else ""
            raise TypeError(
                f"{argument}: column {name!r} holds {array.dtype}, such as {array[0]} in row 0, "
                f"expected numbers{other}"
            )
        if (infinite := np.isinf(values)).any():
            row = int(infinite.argmax())
            raise ValueError(
                f"{argument}: column {name!r} is {values[row]} in row {row}, "
                "expected finite numbers"
            )
        return values

    def labels(self, argument: str, name: str) -> tuple[NDArray[np.intp], list[Any]]:
        """Return which label each row (R,) has, and the labels in the order in which they appear.

        Raises
        ------
        ValueError
            If there is no such column, a row has no label, or a category of pandas no row.
        """
        column = self.column(argument, name)
        array = _as_array(column)
        if (gaps := _gaps(column, array)).any():
            raise ValueError(f"{argument}: column {name!r} has no value in row {gaps.argmax()}")
        codes: dict[Any, int] = {}
        if array.dtype.kind == "M":  # Python has no nanoseconds, and lists them as integers
            array = array.astype("datetime64[us]")
        each = [codes.setdefault(label, len(codes)) for label in array.tolist()]
        categories = getattr(getattr(column, "dtype", None), "categories", None)
        if _is_pandas(column) and categories is not None:
            for category in categories:
                if category not in codes:
                    raise ValueError(
                        f"{argument}: the group {category!r} of column {name!r} is empty, "
                        "cat.remove_unused_categories() removes it"
                    )
        return np.array(each, np.intp), list(codes)

    def times(self, argument: str, name: str | None) -> Times:
        """Return a column of times (R,), or with None the index: datetime64[us], int64 or float64.

        Times with a zone are taken in UTC. Text is read as ISO 8601.

        Raises
        ------
        TypeError, ValueError
            If there is no such column, or it holds something else, or a row has no time.
        """
        of_index = name is None or (
            self._index is not None and name == self._index.name and name not in self._columns
        )
        column: Any = self._index if of_index else self.column(argument, str(name))
        label = "the index" if of_index else f"column {name!r}"
        array = _as_array(without_zone(column) if _is_pandas(column) else column)
        if (gaps := _gaps(column, array)).any():
            raise ValueError(f"{argument}: {label} has no time in row {gaps.argmax()}")
        if array.dtype.kind in "OUST":
            array = _parsed_times(argument, label, array)
        if array.dtype.kind == "M":
            if (gaps := np.isnat(array)).any():
                raise ValueError(f"{argument}: {label} has no time in row {gaps.argmax()}")
            return array.astype("datetime64[us]")
        if array.dtype.kind in "iu":
            if array.dtype.kind == "u" and (large := array > np.iinfo(np.int64).max).any():
                row = int(large.argmax())
                found = f"{label} is {array[row]} in row {row}"
                raise ValueError(f"{argument}: {found}, expected numbers below 2**63")
            return array.astype(np.int64)
        if array.dtype.kind == "f":
            return array.astype(np.float64)
        raise TypeError(f"{argument}: {label} holds {array.dtype}, expected times or numbers")


def _named_columns(frame: Any) -> list[tuple[str, Any]]:
    """Return the columns of any kind of table with their names."""
    if isinstance(frame, Mapping):
        columns = [(str(name), _one_dimension(str(name), values)) for name, values in frame.items()]
    elif isinstance(frame, np.ndarray) and frame.dtype.names is not None:
        if frame.ndim != 1:
            raise ValueError(f"frame: got a structured array {frame.shape}, expected (R,)")
        columns = [(name, frame[name]) for name in frame.dtype.names]
    else:
        found = _foreign.columns_of(frame)
        if found is None:
            array = frame if isinstance(frame, np.ndarray) else None
            if array is None or array.ndim not in (1, 2):
                got = type(frame).__name__ if array is None else f"an array {array.shape}"
                raise TypeError(
                    f"frame: got {got}, expected a DataFrame, a mapping of names to columns, a "
                    "structured array or an array (R, C)"
                )
            found = list(enumerate(np.atleast_2d(array.T)))
        columns = [(str(name), column) for name, column in found]
    if not columns:
        raise ValueError("frame: has no columns, expected some")
    return columns


def _one_dimension(name: str, values: Any) -> Any:
    if _foreign.columns_of(values) is not None:
        return values
    array = values if isinstance(values, np.ma.MaskedArray) else np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"frame: column {name!r} has shape {array.shape}, expected (R,)")
    return array


def _as_array(column: Any) -> NDArray[Any]:
    return column if type(column) is np.ndarray else np.asarray(column)


def _is_pandas(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "pandas"


def is_time(index: Any) -> bool:
    """Whether an index of pandas holds times."""
    return getattr(index.dtype, "kind", "") == "M" or is_of_periods(index.dtype)


def is_of_periods(dtype: Any) -> bool:
    """Whether a dtype is that of pandas' periods."""
    return type(dtype).__name__ == "PeriodDtype"


def without_zone(column: Any) -> Any:
    """Return times of pandas in UTC, and periods as the times at which they begin."""
    if is_of_periods(column.dtype):
        return getattr(column, "dt", column).to_timestamp()
    if getattr(column.dtype, "tz", None) is None:
        return column
    column = getattr(column, "dt", column).tz_convert("UTC")
    return getattr(column, "dt", column).tz_localize(None)


def _gaps(column: Any, array: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where a column has no value (R,)."""
    for name in ("isna", "is_null"):  # of pandas, of polars and pyarrow
        if hasattr(column, name):
            return np.asarray(getattr(column, name)()).astype(np.bool_)
    gaps: Any = np.zeros(len(array), np.bool_)
    if array.dtype.kind == "O":
        gaps = [value is None or _is_nan(value) for value in array.tolist()]
    elif array.dtype.kind in "fM":
        gaps = np.isnan(array)
    return np.asarray(gaps, np.bool_) | _masked(column, array)


def _masked(column: Any, array: NDArray[Any]) -> NDArray[np.bool_]:
    """Return what a masked array of NumPy's hides (R,)."""
    if isinstance(column, np.ma.MaskedArray):
        return np.ma.getmaskarray(column)
    return np.zeros(len(array), np.bool_)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and value != value


def _numbers_of_objects(
    argument: str, name: str, array: NDArray[Any], gaps: NDArray[np.bool_]
) -> Float64:
    """Return Python's numbers as float64; TypeError that names the first value that is none."""
    values = np.full(len(array), np.nan)
    text: tuple[int, str] | None = None  # the first that is a number
    for row, (value, gap) in enumerate(zip(array.tolist(), gaps.tolist(), strict=True)):
        if gap:
            continue
        if isinstance(value, numbers.Real | Decimal):
            values[row] = float(value)
        elif isinstance(value, str) and _is_written_number(value):
            text = text or (row, value)
        else:
            raise TypeError(
                f"{argument}: column {name!r} is {value!r} in row {row}, expected numbers"
            )
    if text is not None:
        raise TypeError(
            f"{argument}: column {name!r} holds text, such as {text[1]!r} in row {text[0]}, "
            "expected numbers"
        )
    return values


def _is_written_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def in_utc(value: Any) -> Any:
    """Return a date of Python, or as text of ISO 8601, as NumPy reads it: in UTC, without a zone.

    Raises
    ------
    ValueError
        If text is no date of ISO 8601.
    """
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, str):
        value = value.strip()
        if not is_plain_time(value):
            value = datetime.datetime.fromisoformat(value)
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        value = value.astimezone(datetime.UTC).replace(tzinfo=None)
    return value


def is_plain_time(text: str) -> bool:
    """Whether text is a time of ISO 8601 without a zone, which NumPy reads by itself."""
    return _PLAIN.fullmatch(text) is not None


def _parsed_times(argument: str, label: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return text, or dates of Python, as times; ValueError that names the first that is none."""
    values = array.tolist()
    try:
        return np.array([in_utc(value) for value in values], "datetime64[us]")
    except (TypeError, ValueError):
        pass
    for row, value in enumerate(values):
        try:
            np.datetime64(in_utc(value), "us")
        except (TypeError, ValueError):
            raise ValueError(
                f"{argument}: {label} is {value!r} in row {row}, expected times as of ISO 8601, "
                "2001-12-31 or 2001-12-31T23:59"
            ) from None
    raise TypeError(f"{argument}: {label} holds {array.dtype}, expected times or numbers")
