"""Series out of a table: rows in the order of time, at equal distances, one group after the other.

Letters: R rows, G groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.data.tables import Float64, Table, Times
from fastlstm.data.times import (
    Rows,
    Rule,
    Step,
    aggregate,
    check_order,
    find_step,
    group_of,
)


@dataclass(frozen=True)
class Panel:
    """Series of numbers, of one group or several.

    Attributes
    ----------
    values : dict of str to float64 (R,)
        Columns, NaN where there is no value.
    bounds : (G + 1,)
        Where groups begin and end.
    groups : list or None
        Their names; None if there is one without a name.
    time : (R,) or None
    step : Step or None
        The distance of times.
    rows : (R,) or None
        Of the table, for messages; None if rows were put together.
    """

    values: dict[str, Float64]
    bounds: Rows
    groups: list[Any] | None
    time: Times | None
    step: Step | None
    rows: Rows | None

    def place(self, row: int) -> str:
        """Return what messages call a row."""
        text = f"row {self.rows[row]}" if self.rows is not None else f"the step of {self._at(row)}"
        if self.groups is None:
            return text
        return f"{text} of group {group_of(row, self.bounds, self.groups)!r}"

    def _at(self, row: int) -> str:
        return str(None if self.time is None else self.time[row])


def as_panel(
    table: Table,
    columns: Mapping[str, str],
    group: str | None,
    time: str | None,
    resample: Rule | None,
    how: str | Mapping[str, str],
) -> Panel:
    """Read series from a table.

    Parameters
    ----------
    table : Table
    columns : mapping of str to str
        Names of columns, with the argument that asks for each.
    group, time : str or None
        Names of columns; without a time, the index of pandas where it holds times.
    resample : Rule or None
    how : str or mapping of columns to str
        Of `times.aggregate`.

    Raises
    ------
    TypeError, ValueError
        If a column is missing or holds something else, times are not in order, come twice or are
        not at equal distances.
    """
    values = {name: table.numbers(argument, name) for name, argument in columns.items()}
    rows: Rows = np.arange(table.rows)
    groups: list[Any] | None = None
    bounds: Rows = np.array([0, table.rows], np.intp)
    timed = time is not None or table.has_index_of_times
    times = table.times("time", time) if timed else None
    if group is not None:
        codes, groups = table.labels("group", group)
        if (codes[1:] < codes[:-1]).any():
            rows = np.argsort(codes, kind="stable")
            values = {name: column[rows] for name, column in values.items()}
            times = None if times is None else times[rows]
        bounds = np.concatenate([[0], np.cumsum(np.bincount(codes))]).astype(np.intp)
    if times is None:
        if resample is not None:
            raise ValueError("resample: needs time=, the column that holds the times")
        return Panel(values, bounds, groups, None, None, rows)
    check_order(times, bounds, rows, groups)
    if resample is None:
        step = find_step(times, bounds, rows, groups)
        return Panel(values, bounds, groups, times, step, rows)
    if times.dtype.kind != "M":
        raise TypeError(f"resample: the times are {times.dtype}, expected dates")
    return _resampled(values, bounds, groups, times, resample, how)


def _resampled(
    values: Mapping[str, Float64],
    bounds: Rows,
    groups: list[Any] | None,
    time: Times,
    rule: Rule,
    how: str | Mapping[str, str],
) -> Panel:
    """Put rows of one step of the calendar together; a step without rows has no values."""
    bins = rule.bins(time)
    first, last = bins[bounds[:-1]], bins[bounds[1:] - 1]
    counts = last - first + 1
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.intp)
    # Of each row: the step in its group, behind the steps of the groups before.
    position = bins + np.repeat(ends[:-1] - first, np.diff(bounds))
    size = int(ends[-1])
    regular = np.arange(size) - np.repeat(ends[:-1] - first, counts)
    starts = rule.starts(regular)
    hows = {name: how if isinstance(how, str) else how.get(name, "mean") for name in values}
    put = {name: aggregate(hows[name], v, position, size) for name, v in values.items()}
    return Panel(put, ends, groups, starts, _step_of(rule), None)


def _step_of(rule: Rule) -> Step:
    if rule.unit in ("M", "Q", "Y"):
        return Step(0, rule.count * {"M": 1, "Q": 3, "Y": 12}[rule.unit])
    start, following = rule.starts(np.array([0, 1]))
    return Step(float((following - start) / np.timedelta64(1, "us")))


def group_lengths(panel: Panel) -> NDArray[np.intp]:
    """Return the rows of each group (G,)."""
    return np.diff(panel.bounds)


def listed(names: Sequence[Any], count: int = 5) -> str:
    """Return the first names of some, and that there are more."""
    return ", ".join(map(repr, names[:count])) + (", ..." if len(names) > count else "")
