"""Series as a forecaster is given them, as one table in the long format.

Letters: S series, R rows of one, K targets, F known inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from sklearn.utils.validation import check_array

from fastlstm.data.tables import is_of_periods, is_time, without_zone
from fastlstm.sklearn._inputs import Array, unmasked

#: A column's name with its rows of each series.
Columns: TypeAlias = dict[str, list[Array]]

#: Names of the columns that are no numbers.
GROUP, TIME = "series", "time"


@dataclass(frozen=True)
class Table:
    """Series side by side.

    Attributes
    ----------
    targets, known : mapping of K, F names to S arrays (R_s,)
    times : list of S arrays (R_s,), or None
        datetime64, of a zone in UTC, of periods when they begin.
    indices : list of S dtypes of pandas, or None
        Of the indices that hold the times: they know of the zone, and of periods.
    several, flat, framed : bool
        How y came: as a list; (R,) and not (R, K); of pandas.
    """

    targets: Columns
    known: Columns
    times: list[Array] | None
    indices: list[Any] | None
    several: bool
    flat: bool
    framed: bool

    @property
    def count(self) -> int:
        """S."""
        return len(next(iter(self.targets.values())))

    def lengths(self, columns: Columns | None = None) -> list[int]:
        """Return the rows of each series, of the targets or of other columns."""
        return [len(each) for each in next(iter((columns or self.targets).values()))]

    @property
    def has_nan(self) -> bool:
        """Whether a target is missing."""
        return any(np.isnan(part).any() for parts in self.targets.values() for part in parts)

    def columns(self) -> dict[str, Array]:
        """Return what `fastlstm.data.windows` takes."""
        parts = {name: np.concatenate(each) for name, each in (self.targets | self.known).items()}
        if self.several:
            parts[GROUP] = np.repeat(np.arange(self.count), self.lengths())
        if self.times is not None:
            parts[TIME] = np.concatenate(self.times)
        return parts

    def index_of(self, s: int, times: Any) -> Any:
        """Return a DatetimeIndex of `times` as the index of series s is: of a zone, of periods."""
        assert self.indices is not None  # as there are times
        dtype = self.indices[s]
        if is_of_periods(dtype):
            return times.to_period(dtype.freq)
        zone = getattr(dtype, "tz", None)
        return times if zone is None else times.tz_localize("UTC").tz_convert(zone)

    def followed_by(self, other: Table) -> Table:
        """Return the rows of another table of the same series behind those of this one.

        Raises
        ------
        ValueError
            If its columns, or the number of series, are others.
        """
        for what in ("several", "flat"):
            if getattr(self, what) != getattr(other, what):
                raise ValueError("y is of another shape, expected series as in fit")
        if self.count != other.count:
            raise ValueError(f"y has {other.count} series, expected {self.count} as in fit")
        for mine, others, what in (
            (self.targets, other.targets, "y"),
            (self.known, other.known, "X"),
        ):
            if list(mine) != list(others):
                raise ValueError(
                    f"{what} has columns {list(others)}, expected {list(mine)} as in fit"
                )
        if (self.times is None) != (other.times is None):
            raise ValueError("y has times in one call, and none in the other")
        times = None
        if self.times is not None and other.times is not None:
            check_kinds(self.indices, other.indices, "y")
            times = [np.concatenate(pair) for pair in zip(self.times, other.times, strict=True)]
        return replace(
            self,
            targets=_joined(self.targets, other.targets),
            known=_joined(self.known, other.known),
            times=times,
        )


def as_table(y: Any, X: Any) -> Table:
    """Return series, and what is known ahead beside them, as a table.

    Raises
    ------
    TypeError, ValueError
        If they are not as `LSTMForecaster.fit` describes them.
    """
    several = _is_several(y)
    series = list(y) if several else [y]
    parts = [_columns(each, "y") for each in series]
    targets = _together(parts, "y")
    known: Columns = {}
    if X is not None:
        known = as_known(X, several, len(series))
        if both := sorted(set(targets) & set(known)):
            raise ValueError(f"X has a column {both[0]!r} that y has, too, expected other names")
    times, indices = _times(series)
    table = Table(
        targets,
        known,
        times,
        indices,
        several,
        flat=all(getattr(each, "ndim", np.ndim(each)) == 1 for each in series),
        framed=all(hasattr(each, "iloc") for each in series),
    )
    if taken := {GROUP, TIME} & {*targets, *known}:
        raise ValueError(f"y and X can't have a column {sorted(taken)[0]!r}, expected other names")
    if known and (theirs := table.lengths(known)) != table.lengths():
        raise ValueError(f"X has {theirs} rows, expected {table.lengths()} as y")
    if known:
        check_times(X, several, table.times, "X", table.indices)
    for s, length in enumerate(table.lengths() if known else []):
        if all(np.isnan(each[s][length - 1]) for each in targets.values()):
            which = f"y[{s}]" if several else "y"
            raise ValueError(
                f"{which} ends with NaN, expected a value in its last row: behind it the steps to "
                "come begin, where X is known ahead"
            )
    return table


def as_known(X: Any, several: bool, count: int) -> Columns:
    """Return inputs that are known ahead, of one series or of several, by name.

    Raises
    ------
    TypeError, ValueError
        If there is not one array for each series, or they have other columns.
    """
    given = list(X) if several else [X]
    if len(given) != count:
        raise ValueError(f"X has {len(given)} series, expected {count} as y")
    return _together([_columns(each, "X") for each in given], "X")


def check_times(X: Any, several: bool, expected: Any, what: str, indices: Any) -> None:
    """Raise a ValueError if inputs that are known ahead have dates, and others than the series.

    Those of S series (R_s,) are expected, or those of their first rows; None if these have none.
    ``indices`` are of these, as `Table` has them.
    """
    times, found = _times(list(X) if several else [X])
    if times is None or expected is None:
        return
    check_kinds(indices, found, what)
    for mine, of_series in zip(times, expected, strict=True):
        of_rows = of_series.astype("datetime64[us]")[: len(mine)]
        wrong = np.flatnonzero(mine.astype("datetime64[us]")[: len(of_rows)] != of_rows)
        if len(wrong):
            row = wrong[0]
            raise ValueError(
                f"{what} has time {mine[row]} in row {row}, expected {of_rows[row]} as of y"
            )


def _is_several(y: Any) -> bool:
    if not isinstance(y, list | tuple) or not y:
        return False
    return all(getattr(each, "ndim", np.ndim(each)) in (1, 2) for each in y)


def _columns(given: Any, what: str) -> dict[str, Array]:
    """Return the columns of one series by name."""
    names: list[str] | None = None
    if hasattr(given, "columns"):
        names = [str(name) for name in given.columns]
    elif getattr(given, "name", None) is not None:
        names = [str(given.name)]
    if twice := [name for name in names or [] if (names or []).count(name) > 1]:
        raise ValueError(f"{what} has several columns {twice[0]!r}, expected names that differ")
    array = check_array(
        unmasked(given),
        ensure_2d=False,
        dtype=np.float64,
        input_name=what,
        ensure_all_finite="allow-nan",
    )
    if array.ndim not in (1, 2):
        raise ValueError(f"{what} has shape {array.shape}, expected (rows,) or (rows, columns)")
    if names is None:
        flat = array.ndim == 1
        names = [what] if flat else [f"{what}{i}" for i in range(array.shape[1])]
    return dict(zip(names, array.reshape(len(array), -1).T, strict=True))


def _together(parts: list[dict[str, Array]], what: str) -> Columns:
    names = list(parts[0])
    for i, part in enumerate(parts):
        if len(part) != len(names):
            raise ValueError(
                f"{what}[{i}] has {len(part)} columns, but {what}[0] has {len(names)}, expected as "
                "many in each"
            )
        if len(names) > 1 and set(part) != set(names):
            raise ValueError(f"{what}[{i}] has columns {list(part)}, expected {names} as {what}[0]")
    if len(names) == 1:  # series of pandas have names of their own
        return {names[0]: [next(iter(part.values())) for part in parts]}
    return {name: [part[name] for part in parts] for name in names}


def check_kinds(mine: Any, others: Any, what: str) -> None:
    """Raise a ValueError if some times have a zone and others have none: these may be of any."""
    for dtype, other in zip(mine, others, strict=True):
        if (getattr(dtype, "tz", None) is None) != (getattr(other, "tz", None) is None):
            raise ValueError(f"{what} has times of {other}, expected {dtype} as in y of fit")


def _times(series: list[Any]) -> tuple[list[Array] | None, list[Any] | None]:
    """Return the times in the indices of pandas' series, and the dtypes of these, if there are."""
    if not all(hasattr(each, "iloc") for each in series):
        return None, None
    if not all(is_time(each.index) for each in series):
        return None, None
    times = [np.asarray(without_zone(each.index)) for each in series]
    return times, [each.index.dtype for each in series]


def _joined(before: Columns, after: Columns) -> Columns:
    return {
        name: [np.concatenate(pair) for pair in zip(before[name], after[name], strict=True)]
        for name in before
    }
