"""Tables in and out of a predictor: pandas, Arrow, and mappings of names to columns.

Letters: R rows, B sequences, T time steps, I input size, C numbers of an answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastlstm import _foreign
from fastlstm._arguments import shown
from fastlstm._extras import import_for
from fastlstm.distributed._answers import Answer, listed
from fastlstm.distributed._cells import as_cells, as_times, is_missing, objects, plain

if TYPE_CHECKING:
    from fastlstm.distributed._predictor import Predictor

Array: TypeAlias = NDArray[Any]
#: Names of columns; None where nobody named any.
Names: TypeAlias = tuple[str, ...] | None

#: Numbers of padded inputs that are handed to the model at a time.
_AT_A_TIME = 2**20


def told_frame(features: Any, group: Any, time: Any) -> tuple[Names, Names, str | None]:
    """Return the names of columns that a predictor was told of; TypeError if they are none."""
    if time is not None and not isinstance(time, str):
        raise TypeError(f"time: got {shown(time)}, expected the name of a column")
    return _as_names("features", features), _as_names("group", group), time


def _as_names(argument: str, value: Any) -> Names:
    if value is None or isinstance(value, str):
        return None if value is None else (value,)
    names = tuple(value) if isinstance(value, Sequence) else (None,)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"{argument}: got {shown(value)}, expected names of columns")
    if len(set(names)) < len(names) or (not names and argument == "features"):
        raise ValueError(f"{argument}: got {shown(value)}, expected different names")
    return names


def check_order(own: Sequence[str] | None, given: Sequence[Any]) -> None:
    """Raise a ValueError for a model's own names in another order than its own.

    They are the inputs in the model's order, so that this exchanges some of them.
    """
    if own is not None and list(own) != list(given) and sorted(own) == sorted(map(str, given)):
        raise ValueError(
            f"features: got the model's own names in another order, {listed(given)}, expected "
            f"{listed(own)}, or nothing"
        )


def told_features(predictor: Predictor) -> tuple[str, ...]:
    """Return the columns that are inputs of a table, and refuse what no table can be answered with.

    Raises
    ------
    ValueError
        If they are not known; or if an answer would take the place of a column that is read, or
        of another answer.
    """
    if predictor.features is None:
        raise ValueError("features: needed of a table, the names of the columns that are inputs")
    read = {*predictor.features, *(predictor.group or ()), predictor.time}
    made: list[str] = []
    for answer in predictor.answers:
        # With groups there is a number in each cell, without a whole sequence.
        is_whole = predictor.group is None
        names = [answer.column(predictor.name)] if is_whole else answer.columns(predictor.name)
        for name in names:
            if name in read:
                raise ValueError(
                    f"name: got {predictor.name!r}, by which an answer would take the place of "
                    f"column {name!r}, which is read; expected another"
                )
            if name in made:
                raise ValueError(
                    f"name: got {predictor.name!r}, by which two answers would be called {name!r}, "
                    "after their heads, classes or targets"
                )
            made.append(name)
    return predictor.features


def predict_frame(predictor: Predictor, frame: Any) -> Any:
    """Return a table with the answers to one; see `Predictor.__call__`."""
    features = told_features(predictor)
    pairs = list(_foreign.columns_of(frame) or frame.items())
    columns = dict(pairs)
    wanted = (*features, *(predictor.group or ()), predictor.time)
    for name in wanted:
        if name is not None and name not in columns:
            raise ValueError(f"frame: there is no column {name!r}, there are {listed(columns)}")
        found = [len(column) for each, column in pairs if each == name]
        if len(found) > 1:
            raise ValueError(f"frame: there are {len(found)} columns {name!r}, expected one")
        if isinstance(columns.get(name), np.ma.MaskedArray):
            raise TypeError(
                f"frame: column {name!r} is a masked array, expected one without a mask (see "
                ".filled())"
            )
        if found and found[0] != (rows := len(columns[features[0]])):
            raise ValueError(f"frame: column {name!r} has {found[0]} rows, expected {rows}")
    inputs = [as_cells(name, columns[name]) for name in features]
    rows = len(inputs[0])
    # Without rows there is nothing to tell by.
    are_lists = {isinstance(column, list) if rows else predictor.group is None for column in inputs}
    if len(are_lists) > 1:
        raise ValueError(
            f"features: some of {listed(features)} hold a number in each cell, some "
            "a sequence, expected one or the other"
        )
    if are_lists == {True}:
        return _of_lists(predictor, frame, inputs)
    return _of_steps(predictor, frame, columns, inputs)


def _of_lists(predictor: Predictor, frame: Any, inputs: list[list[Array]]) -> Any:
    """Return a table in which a row is a sequence."""
    if predictor.group or predictor.time is not None:
        raise ValueError("group, time: got one of a table with a sequence in each cell, a row each")
    names = predictor.features or ()
    if len(inputs) == 1:
        width = predictor.layer.input_size
        is_flat = predictor.takes_tokens or width == 1
        sequences: list[Array] = [
            _shaped(names[0], row, x, width, is_flat) for row, x in enumerate(inputs[0])
        ]
    else:
        sequences = []
        for row, cells in enumerate(zip(*inputs, strict=True)):
            if len({cell.shape for cell in cells}) > 1 or cells[0].ndim != 1:
                shapes = ", ".join(str(cell.shape) for cell in cells[:10])
                raise ValueError(
                    f"frame: row {row} has sequences of shapes {shapes} in the columns "
                    f"{listed(names)}, expected one length"
                )
            sequences.append(np.stack(cells, axis=-1))
    made = _predicted(predictor, sequences)
    added, examples = dict[str, Any](), dict[str, Any]()
    for answer in predictor.answers:
        name = answer.column(predictor.name)
        added[name] = [_as_cell(answer, each) for each in made[answer.head]]
        steps = (1,) if predictor.each_step else ()
        examples[name] = _as_cell(answer, np.zeros((*steps, *answer.shape), answer.dtype))
    return _with_columns(frame, added, examples)


def _shaped(name: str, row: int, x: Array, width: int, is_flat: bool) -> Array:
    """Return the sequence in a cell as a predictor takes it, (T, I), or (T,) of an embedding."""
    if is_flat and x.ndim == 1:
        return x if x.dtype.kind in "iu" else x[:, np.newaxis]
    if x.size == 0:
        return np.empty((0, width))
    if x.ndim != 2 or x.shape[1] != width:
        expected = "(T,)" if is_flat else f"(T, {width})"
        raise ValueError(f"frame: {name!r} has {x.shape} in row {row}, expected {expected}")
    return x


def _of_steps(
    predictor: Predictor, frame: Any, columns: Mapping[str, Any], inputs: list[Array]
) -> Any:
    """Return a table in which a row is a step, or one with a row for each sequence."""
    if predictor.group is None:
        raise ValueError(
            "group: needed of a table with a number in each cell, the columns that tell whose step "
            "it is; group=() takes the table for one sequence"
        )
    rows = len(inputs[0])
    codes, first = _groups([(name, columns[name]) for name in predictor.group], rows)
    order = _in_order(predictor, columns, codes)
    ends = np.cumsum(np.bincount(codes, minlength=len(first)))
    x = inputs[0] if predictor.takes_tokens else np.stack(inputs, axis=-1)
    sequences = np.split(x[order], ends[:-1]) if rows else []
    made = _predicted(predictor, sequences)
    added: dict[str, Any] = {}
    for answer in predictor.answers:
        each = made[answer.head]
        if predictor.each_step:
            flat = np.empty((rows, *answer.shape), answer.dtype)
            if rows:
                flat[order] = np.concatenate(each)
        else:
            flat = np.array(each, answer.dtype).reshape(len(first), *answer.shape)
        table = flat.reshape(len(flat), math.prod(answer.shape))
        names = answer.columns(predictor.name)
        added |= {name: table[:, c] for c, name in enumerate(names)}
    if predictor.each_step:
        return _with_columns(frame, added)
    return _with_columns(_taken(frame, predictor.group, first), added)


def _groups(columns: list[tuple[str, Any]], rows: int) -> tuple[Array, Array]:
    """Return which sequence each row (R,) is of, in the order they appear, and their first rows."""
    if not columns:
        return np.zeros(rows, np.intp), np.zeros(min(rows, 1), np.intp)
    keys = list(zip(*(plain(column).tolist() for _, column in columns), strict=True))
    numbers: dict[Any, int] = {}
    try:
        codes = np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.intp)
    except TypeError as error:
        names = listed(name for name, _ in columns)
        raise TypeError(f"group: {names} can't tell one sequence from another: {error}") from None
    for key in numbers:
        for (name, _), value in zip(columns, key, strict=True):
            if is_missing(value):
                raise ValueError(f"group: column {name!r} has no value in row {keys.index(key)}")
    first = np.unique(codes, return_index=True)[1]
    return codes, first


def _in_order(predictor: Predictor, columns: Mapping[str, Any], codes: Array) -> Array:
    """Return the rows (R,), one sequence after the other, each in the order of time."""
    if predictor.time is None:
        return np.argsort(codes, kind="stable")
    name = predictor.time
    times = as_times(name, columns[name])
    order: Array = np.lexsort((times, codes))
    same = (codes[order][1:] == codes[order][:-1]) & (times[order][1:] == times[order][:-1])
    if same.any():
        first, second = order[int(same.argmax()) :][:2]
        raise ValueError(
            f"time: column {name!r} has {plain(columns[name])[first]} twice in a sequence, in "
            f"rows {first} and {second}"
        )
    return order


def _predicted(predictor: Predictor, sequences: list[Array]) -> dict[str, list[Any]]:
    """Return the answers to sequences of any lengths by head, some at a time."""
    made: dict[str, list[Any]] = {
        answer.head: [None] * len(sequences) for answer in predictor.answers
    }
    for rows in _batches(sequences, predictor.layer.input_size):
        answers = predictor._of_arrays([sequences[row] for row in rows], None, None)
        by_head = answers if isinstance(answers, dict) else {predictor.answers[0].head: answers}
        for head, each in by_head.items():
            for row, answer in zip(rows, each, strict=True):
                made[head][row] = answer
    return made


def _batches(sequences: list[Array], width: int) -> Iterator[list[int]]:
    """Yield which sequences to pad to one length: such as differ little, and not too many."""
    batch: list[int] = []
    longest = 0
    for row in sorted(range(len(sequences)), key=lambda row: -len(sequences[row])):
        if batch and (len(batch) + 1) * longest * width > _AT_A_TIME:
            yield batch
            batch = []
        if not batch:
            longest = max(len(sequences[row]), 1)
        batch.append(row)
    if batch:
        yield batch


def _as_cell(answer: Answer, value: Any) -> Any:
    """Return the answer to a sequence as a cell holds it: (T,) or (T, C), a number or (C,)."""
    array = np.asarray(value)
    kept = array.shape[: array.ndim - len(answer.shape)]
    C = math.prod(answer.shape)
    return array.reshape(*kept, C) if C > 1 else array.reshape(kept)[()]


def _with_columns(
    frame: Any, added: Mapping[str, Any], examples: Mapping[str, Any] | None = None
) -> Any:
    """Return a table with more columns (R,) or lists of cells, or others by these names.

    An example of a cell tells what kind a list without any is of.
    """
    if isinstance(frame, Mapping):
        return {**frame, **{name: _as_column(values) for name, values in added.items()}}
    if hasattr(frame, "iloc"):
        return frame.assign(**{name: _as_series(values) for name, values in added.items()})
    pa = import_for("Arrow's tables", "pyarrow")
    table = frame if isinstance(frame, pa.Table) else pa.Table.from_batches([frame])
    for name, values in added.items():
        if examples is not None and not len(values):
            column = _as_arrow([examples[name]])[:0]
        else:
            column = _as_arrow(values)
        table = with_column(table, name, column)
    if isinstance(frame, pa.Table):
        return table
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def with_column(table: Any, name: str, column: Any) -> Any:
    """Return a table of Arrow with another column, in the place of one that is called so.

    So it is in the other kinds of tables, and Spark tells columns by their places.
    """
    place = table.schema.get_field_index(name)
    if place < 0:
        return table.append_column(name, column)
    return table.set_column(place, name, column)


def _taken(frame: Any, names: Sequence[str], rows: Array) -> Any:
    """Return some columns of some rows of a table."""
    if isinstance(frame, Mapping):
        return {name: np.asarray(frame[name])[rows] for name in names}
    if hasattr(frame, "iloc"):
        return frame[list(names)].iloc[rows].reset_index(drop=True)
    return frame.select(list(names)).take(rows)


def _as_column(values: Any) -> Array:
    """Return cells as an array (R, ...), or (R,) of objects where their shapes differ."""
    if isinstance(values, np.ndarray):
        return values
    if len({np.shape(value) for value in values}) == 1:
        return np.stack(values)
    return objects(values)


def _as_series(values: Any) -> Array:
    """Return cells as pandas keeps them, and Arrow reads them: lists of lists, not of tensors."""
    if isinstance(values, np.ndarray) or np.ndim(values[0] if values else 0) == 0:
        return np.asarray(values)
    return objects([list(value) if np.ndim(value) > 1 else value for value in values])


def _as_arrow(values: Any) -> Any:
    """Return cells as an array of Arrow's: numbers, lists, or lists of lists."""
    import pyarrow as pa

    if isinstance(values, np.ndarray) or np.ndim(values[0] if values else 0) == 0:
        return pa.array(np.asarray(values))
    bounds = np.concatenate([[0], np.cumsum([len(value) for value in values])]).astype(np.int32)
    flat = np.concatenate(values)
    inner = pa.array(flat.ravel())
    if flat.ndim > 1:
        steps = np.arange(len(flat) + 1, dtype=np.int32) * flat.shape[1]
        inner = pa.ListArray.from_arrays(steps, inner)
    return pa.ListArray.from_arrays(bounds, inner)
