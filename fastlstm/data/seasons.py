"""Seasons of series: after how many rows they repeat."""

from __future__ import annotations

import numpy as np

from fastlstm.data.tables import Float64

#: Autocorrelation from which on it is a season, and how near to the highest it has to be.
_LEAST, _NEAR = 0.3, 0.9


def find_season(values: Float64) -> int | None:
    """Return after how many rows a series repeats, or None.

    Parameters
    ----------
    values : (R,)
        NaN where there is no value: a line is drawn there.

    Returns
    -------
    int or None
        The shortest of the lags at which the autocorrelation of what is left of the series without
        a parabola has a peak that is nearly as high as the highest behind its first negative value:
        at most a third of the rows.
    """
    there, rows = np.flatnonzero(~np.isnan(values)), len(values)
    if len(there) < 6:
        return None
    line = np.interp(np.arange(rows), there, values[there])
    time = np.arange(rows) / rows
    rest = line - np.polyval(np.polyfit(time, line, 2), time)
    if rest.std() <= 1e-9 * max(1.0, np.abs(line).max()):
        return None
    spectrum = np.abs(np.fft.rfft(rest, 2 * rows)) ** 2
    correlation = np.fft.irfft(spectrum)[: rows // 3 + 2]
    correlation /= correlation[0]
    if not (correlation < 0).any():
        return None
    lags = np.arange(max(2, int((correlation < 0).argmax())), len(correlation) - 1)
    here = correlation[lags]
    lags = lags[(here > correlation[lags - 1]) & (here >= correlation[lags + 1])]
    if not len(lags) or correlation[lags].max() < _LEAST:
        return None
    return int(lags[correlation[lags] >= _NEAR * correlation[lags].max()][0])
