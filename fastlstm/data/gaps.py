"""Missing values of series: where they are, and how they are filled without a look ahead.

Letters: R rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm.data.tables import Float64
from fastlstm.data.times import Rows

Mask = NDArray[np.bool_]

#: What can be done about missing values.
METHODS = ("error", "drop", "ffill", "interpolate", "mean")


class Filled(NamedTuple):
    """A column without the gaps that could be filled.

    Attributes
    ----------
    values : (R,)
        NaN where nothing could be put.
    ahead : bool (R,)
        Where a value was made with the help of a later row.
    """

    values: Float64
    ahead: Mask


def fill(values: Float64, method: str, bounds: Rows, mean: float) -> Filled:
    """Fill the gaps of a column.

    Parameters
    ----------
    values : (R,)
        NaN in the gaps.
    method : str
        One of `METHODS`; "error" and "drop" fill nothing.
    bounds : (G + 1,)
        Where groups begin and end: no value passes from one to another.
    mean : float
        What "mean" puts there.

    Notes
    -----
    "ffill" repeats the last value. "interpolate" draws a line from the last value to the next, and
    repeats the last where there is no next one; `ahead` is for those who must not look so far.
    Before the first value of a group neither puts anything: there only the future could tell.
    """
    missing, ahead = np.isnan(values), np.zeros(len(values), np.bool_)
    if method in ("error", "drop") or not missing.any():
        return Filled(values, ahead)
    if method == "mean":
        return Filled(np.where(missing, mean, values), ahead)
    counts = np.diff(bounds)
    first, end = np.repeat(bounds[:-1], counts), np.repeat(bounds[1:], counts)
    row = np.arange(len(values))
    before = np.maximum.accumulate(np.where(missing, -1, row))
    has_before = before >= first
    filled = np.where(missing, np.nan, values)
    filled[has_before] = values[before[has_before]]
    if method == "interpolate":
        after = np.minimum.accumulate(np.where(missing, len(values), row)[::-1])[::-1]
        ahead = missing & has_before & (after < end)
        a, b, i = before[ahead], after[ahead], row[ahead]
        filled[ahead] = values[a] + (values[b] - values[a]) * ((i - a) / (b - a))
    return Filled(filled, ahead)
