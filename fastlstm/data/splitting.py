"""Where training ends in series, and where a test begins: at the same time in all groups.

Letters: R rows.
"""

from __future__ import annotations

import datetime
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastlstm.data.gaps import Mask
from fastlstm.data.options import WindowOptions
from fastlstm.data.panel import Panel, group_lengths
from fastlstm.data.tables import Times, in_utc

#: Of the rows of a table, in the order of time.
PARTS = ("training", "validation", "test")


class Parts(NamedTuple):
    """Which of `PARTS` each row is in (R,), and how many parts there are."""

    of_row: npt.NDArray[np.int8]
    number: int


def split_rows(panel: Panel, split: Any, options: WindowOptions) -> Parts:
    """Return which part each row is in; the options are of the windows, and hold a rule.

    Raises
    ------
    TypeError, ValueError
        If the split is not as `fastlstm.data.windows` describes it.
    """
    cuts = list(split) if isinstance(split, list | tuple) else [] if split is None else [split]
    if len(cuts) > 2:
        raise ValueError(f"split: got {len(cuts)} values, expected one or two")
    of_row = np.zeros(int(panel.bounds[-1]), np.int8)
    for cut in cuts:
        of_row += _late_rows(panel, cut, options)
    if len(cuts) == 2 and not (_late_rows(panel, cuts[0], options) == (of_row > 0)).all():
        raise ValueError(f"split: got {cuts[0]} and {cuts[1]}, expected them in the order of time")
    return Parts(of_row, len(cuts) + 1)


def _late_rows(panel: Panel, split: Any, options: WindowOptions) -> Mask:
    """Return which rows are behind a split (R,)."""
    rows = int(panel.bounds[-1])
    is_share = isinstance(split, float | np.floating) and not isinstance(split, np.datetime64)
    time = panel.time
    if is_share and (time is None or time.dtype.kind != "f" or 0 < split < 1):
        if not 0 < split < 1:
            raise ValueError(f"split: got {split}, expected a share above 0 and below 1, or a time")
        if time is None:
            lengths = group_lengths(panel)
            position = np.arange(rows) - np.repeat(panel.bounds[:-1], lengths)
            return np.repeat(np.ceil(split * lengths), lengths) <= position
        distinct = time if panel.groups is None else np.unique(time)
        cut = distinct[min(math.ceil(split * len(distinct)), len(distinct) - 1)]
        return np.asarray(time >= cut)
    if time is None:
        raise ValueError(f"split: got {split!r} but no time=, expected a share above 0 and below 1")
    cut = _as_time(split, time)
    if options.rule is not None:  # the step that it lies in knows what is behind it
        cut = options.rule.starts(options.rule.bins(np.array([cut])))[0]
    if not time.min() < cut <= time.max():
        raise ValueError(f"split: got {split}, expected a time from {time.min()} to {time.max()}")
    return np.asarray(time >= cut)


def _as_time(value: Any, time: Times) -> Any:
    """Return the time of a split as the times are; TypeError or ValueError if it is none."""
    if time.dtype.kind != "M":
        if isinstance(value, int | float | np.integer | np.floating) and math.isfinite(value):
            return value
        raise TypeError(f"split: got {value!r}, expected a number as the times are")
    if isinstance(value, int | np.integer) and 1000 <= value <= 9999:  # a year
        value = str(value)
    if isinstance(value, str | datetime.date | np.datetime64):
        try:
            return np.datetime64(in_utc(value), "us")
        except ValueError:
            pass
    raise ValueError(f"split: got {value!r}, expected a share, or a date as of ISO 8601")
