"""Times at equal distances: whether they are, how they go on, and how rows are made so.

Letters: R rows, G groups.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.data.tables import Float64, Times

Rows = NDArray[np.intp]

#: How rows that fall into one step are put together.
AGGREGATES = ("mean", "sum", "min", "max", "first", "last")

#: Share by which distances of floats may differ: numbers such as 0.1 are rounded.
SLACK = 1e-6

_US = np.timedelta64(1, "us")
_DAY = np.timedelta64(1, "D").astype("timedelta64[us]")
_DAY_US = 86400e6
_FIXED = {"s": 1, "min": 60, "h": 3600, "D": 86400, "W": 7 * 86400}
_MONTHS = {"M": 1, "Q": 3, "Y": 12}
#: A Monday, from which weeks are counted.
_MONDAY = np.datetime64("1970-01-05", "us")
_EPOCH = np.datetime64("1970-01-01", "us")


@dataclass(frozen=True)
class Step:
    """The distance from one time to the next.

    Attributes
    ----------
    amount : int or float
        In microseconds of times, or in the unit of numbers; 0 if it is in months.
    months : int
        In calendar months, 0 if it is not.
    from_end : bool
        Whether the days of months are counted from their end.
    """

    amount: float
    months: int = 0
    from_end: bool = False

    def after(self, last: Times, count: int) -> Times:
        """Return the times that follow each of some (n,): (n, count)."""
        last, ahead = last[:, np.newaxis], np.arange(1, count + 1)
        if not self.months:
            kind = "timedelta64[us]" if last.dtype.kind == "M" else last.dtype
            return np.asarray(last + (ahead * self.amount).astype(kind))
        shift = _DAY if self.from_end else 0 * _DAY
        month = (last + shift).astype("datetime64[M]")
        rest = last + shift - month
        return np.asarray((month + ahead * self.months).astype("datetime64[us]") + rest - shift)


def check_order(time: Times, bounds: Rows, rows: Rows, names: list[Any] | None) -> None:
    """Raise a ValueError where times of a group go back, or come twice.

    Parameters
    ----------
    time : (R,)
    bounds : (G + 1,)
        Where groups begin and end.
    rows : (R,)
        Of the user's table, for messages.
    names : list or None
        Of the groups.
    """
    inner = _inner(bounds, len(time))
    wrong = (time[1:] <= time[:-1]) & inner
    if not wrong.any():
        return
    i = int(wrong.argmax()) + 1
    where = f"row {rows[i]}{_of_group(i, bounds, names)}"
    if time[i] == time[i - 1]:
        raise ValueError(
            f"time: {_shown(time[i])} is in row {rows[i - 1]} and again in {where}, expected each "
            f"time once{'' if names else ', or group= for a table of several series'}"
        )
    raise ValueError(
        f"time: {_shown(time[i])} in {where} comes after {_shown(time[i - 1])} in row "
        f"{rows[i - 1]}, expected rows in the order of time"
    )


def find_step(time: Times, bounds: Rows, rows: Rows, names: list[Any] | None) -> Step:
    """Return the distance of all times in their groups; arguments as of `check_order`.

    Raises
    ------
    ValueError
        If they are not equal.
    """
    inner = _inner(bounds, len(time))
    if not inner.any():
        raise ValueError("time: every series has one row, expected at least two")
    distances = np.diff(time)
    of_numbers = time.dtype.kind != "M"
    amounts = distances if of_numbers else distances / _US
    amounts = amounts.astype(np.float64)
    slack = SLACK if time.dtype.kind == "f" else 0.0
    common = float(amounts[inner.argmax()])
    wrong = (np.abs(amounts - common) > slack * abs(common)) & inner
    if not wrong.any():
        return Step(common)
    in_months = False
    for from_end in () if of_numbers else (False, True):
        if (months := _months(time, inner, from_end)) is not None:
            if (months[inner] == months[inner][0]).all():
                return Step(0, int(months[inner][0]), from_end)
            amounts, in_months = months.astype(np.float64), True
            break
    seen, counts = np.unique(amounts[inner], return_counts=True)
    common = float(seen[counts.argmax()])
    i = int(((amounts != common) & inner).argmax()) + 1
    rule = "" if of_numbers else "; resample= makes them even"
    if (
        not of_numbers
        and not in_months
        and common % _DAY_US == 0
        and _is_of_summer_time(float(amounts[i - 1]))
    ):
        rule = (
            "; days of a zone with summer time are not all of 24 hours: local times without the "
            "zone, as of tz_localize(None), are even"
        )

    def said(amount: float) -> str:
        return shown(Step(0, int(amount)) if in_months else Step(amount), of_numbers)

    raise ValueError(
        f"time: from {_shown(time[i - 1])} to {_shown(time[i])} in row {rows[i]}"
        f"{_of_group(i, bounds, names)} it is {said(amounts[i - 1])}, expected {said(common)} as "
        f"between most rows{rule}"
    )


def _is_of_summer_time(amount: float) -> bool:
    """Whether it is whole days but for an hour, which clocks were put forward or back by."""
    rest = (amount + _DAY_US / 2) % _DAY_US - _DAY_US / 2
    return 0 < abs(rest) <= 3600e6


def _months(time: Times, inner: NDArray[np.bool_], from_end: bool) -> NDArray[np.int64] | None:
    """Return how many months lie between times (R - 1,), if they are at the same day of each."""
    shifted = time + _DAY if from_end else time
    month = shifted.astype("datetime64[M]")
    if (np.diff(shifted - month)[inner] != 0 * _US).any():
        return None
    return np.diff(month).astype(np.int64)


def _inner(bounds: Rows, rows: int) -> NDArray[np.bool_]:
    """Return whether each of the R - 1 steps between rows stays in a group."""
    inner = np.ones(rows, np.bool_)
    inner[bounds[:-1]] = False
    return inner[1:]


def _of_group(row: int, bounds: Rows, names: list[Any] | None) -> str:
    return f" of group {group_of(row, bounds, names)!r}" if names else ""


def group_of(row: int, bounds: Rows, names: list[Any]) -> Any:
    """Return the name of the group that a row lies in."""
    return names[int(np.searchsorted(bounds, row, side="right")) - 1]


def _shown(time: Any) -> str:
    """Return a time as people write it, without zeros behind it."""
    if not isinstance(time, np.datetime64):
        return f"{time}"
    return re.sub(r"T00:00$", "", re.sub(r":00$", "", re.sub(r"\.0+$", "", str(time))))


def shown(step: Step, of_numbers: bool) -> str:
    """Return a distance of times, or of numbers, as people say it."""
    if step.months:
        return f"{step.months} month{'' if step.months == 1 else 's'}"
    return _distance(step.amount, of_numbers)


def _distance(amount: float, of_numbers: bool) -> str:
    if of_numbers:
        return f"{amount:g}"
    for unit, size in (("day", 86400e6), ("hour", 3600e6), ("minute", 60e6), ("second", 1e6)):
        if amount % size == 0:
            number = round(amount / size)
            return f"{number} {unit}{'' if number == 1 else 's'}"
    return f"{amount / 1e6:g} seconds"


# Resampling


@dataclass(frozen=True)
class Rule:
    """Steps of the calendar that rows are put together in.

    Attributes
    ----------
    count : int
    unit : str
        "s", "min", "h", "D", "W" from Monday on, "M", "Q" or "Y".
    """

    count: int
    unit: str

    @classmethod
    def parse(cls, text: Any) -> Rule:
        """Read "W", "15min", "3M"; a ValueError if it is no such rule."""
        form = r"([1-9]\d{0,5})?(s|min|h|D|W|M|Q|Y)"
        found = re.fullmatch(form, text) if isinstance(text, str) else None
        if found is None:
            raise ValueError(
                f"resample: got {text!r}, expected s, min, h, D, W, M, Q or Y, and a number before "
                'it if it is not 1, as in "15min"'
            )
        return cls(int(found[1] or 1), found[2])

    def bins(self, time: Times) -> NDArray[np.int64]:
        """Return the number of the step that each time lies in."""
        if self.unit in _MONTHS:
            months = time.astype("datetime64[M]").astype(np.int64)
            return np.asarray(months // (self.count * _MONTHS[self.unit]))
        first, size = self._origin
        return np.asarray((time - first) // size).astype(np.int64)

    def starts(self, bins: NDArray[np.int64]) -> Times:
        """Return when steps begin, datetime64[us]."""
        if self.unit in _MONTHS:
            months = bins * (self.count * _MONTHS[self.unit])
            return months.astype("datetime64[M]").astype("datetime64[us]")
        first, size = self._origin
        return np.asarray(first + bins * size)

    @property
    def _origin(self) -> tuple[np.datetime64, np.timedelta64]:
        """When the step of number 0 begins, and how long each is."""
        size = np.timedelta64(self.count * _FIXED[self.unit] * 10**6, "us")
        return _MONDAY if self.unit == "W" else _EPOCH, size


def aggregate(how: str, values: Float64, position: Rows, size: int) -> Float64:
    """Put together the values (R,) that are known and have the same position; NaN where none is.

    Parameters
    ----------
    how : str
        One of `AGGREGATES`.
    values : (R,)
    position : (R,)
        In the result.
    size : int
        Of the result.
    """
    known = ~np.isnan(values)
    values, position = values[known], position[known]
    result = np.full(size, np.nan)
    if how in ("first", "last"):
        order = slice(None, None, -1 if how == "first" else 1)  # the last that is written stays
        result[position[order]] = values[order]
        return result
    count = np.bincount(position, minlength=size)
    some = count > 0
    if how in ("mean", "sum"):
        total = np.bincount(position, values, size)
        result[some] = total[some] / (count[some] if how == "mean" else 1)
        return result
    lowest = how == "min"
    extreme = np.full(size, np.inf if lowest else -np.inf)
    (np.minimum if lowest else np.maximum).at(extreme, position, values)
    result[some] = extreme[some]
    return result
