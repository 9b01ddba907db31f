"""From series to the arrays that windows are views of: filled, differenced, scaled.

Letters: R rows, F features, K targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm.data.gaps import Filled, Mask, fill
from fastlstm.data.options import WindowOptions
from fastlstm.data.panel import Panel
from fastlstm.data.tables import Float64


@dataclass(frozen=True, eq=False)
class Constants:
    """What the rows before the split tell of the columns, and nothing behind it.

    Attributes
    ----------
    means : dict of str to float
        Of each column as it is, for ``missing="mean"``.
    x_mean, x_scale : (F,) float64
        Mean and standard deviation of each feature; 0 and 1 of those that are not scaled.
    y_mean, y_scale : (K,) float64
        Of each target.
    """

    means: dict[str, float]
    x_mean: Float64
    x_scale: Float64
    y_mean: Float64
    y_scale: Float64


@dataclass(frozen=True, eq=False)
class Prepared:
    """The rows of all series.

    Attributes
    ----------
    x : (R, F) float64
        Features, scaled; 0 where there is none.
    y : (R, K) float64
        Targets, likewise.
    levels : (R, K) float64
        Targets in their own unit, NaN where there is none.
    known : bool (R,)
        Where all features are.
    answered : bool (R,)
        Where all targets are.
    ahead : bool (R,)
        Where a feature, or a target, was made with the help of a row that comes after all that it
        may know.
    ends : (G,)
        Behind the last row of each group that may have a target.
    constants : Constants
    """

    x: Float64
    y: Float64
    levels: Float64
    known: Mask
    answered: Mask
    ahead: Mask
    ends: Any
    constants: Constants


def prepare(
    panel: Panel, options: WindowOptions, late: Mask, constants: Constants | None = None
) -> Prepared:
    """Fill, difference and scale the columns of series.

    Parameters
    ----------
    panel : Panel
    options : WindowOptions
    late : bool (R,)
        Rows behind the split.
    constants : Constants, optional
        Of other series; by default they are those of the rows before the split.

    Raises
    ------
    ValueError
        If a value is missing and none may be, or a group has no value in a column.
    """
    ends = _ends(panel, options)
    to_come = np.arange(len(late)) >= np.repeat(ends, np.diff(panel.bounds))
    _check_values(panel, options, to_come)
    early = ~late & ~to_come
    means = constants.means if constants else _means(panel, ~late)
    filled: dict[str, Filled] = {}
    levels = {}
    for name, values in panel.values.items():
        filled[name] = fill(values, options.missing, panel.bounds, means[name])
        levels[name] = filled[name].values
    features, targets, known, ahead = [], [], ~to_come, np.zeros(len(late), np.bool_)
    x_moments, y_moments = [], []
    for name in options.inputs:
        column = _changed(name, levels[name], panel, options)
        features.append(column)
        x_moments.append(_moments(column[early & ~np.isnan(panel.values[name])]))
        ahead |= filled[name].ahead
    for name in options.future:
        features.append(_shifted(levels[name], -options.horizon, panel))
        x_moments.append(_moments(panel.values[name][~late]))
        ahead |= _shifted(filled[name].ahead.astype(np.float64), -options.horizon, panel) == 1
    for column in features:
        known &= ~np.isnan(column)
    if options.indicator:
        for name in options.inputs:
            features.append(np.isnan(panel.values[name]).astype(np.float64))
            x_moments.append((0.0, 1.0))
    answered = ~to_come
    for name in options.targets:
        # A target that was made up is no answer.
        column = np.where(np.isnan(panel.values[name]), np.nan, levels[name])
        column = _changed(name, column, panel, options, levels[name])
        # Differences are added to what is there, and naive forecasts repeat it, read or not.
        ahead |= filled[name].ahead
        targets.append(column)
        y_moments.append(_moments(column[early]))
        answered &= ~np.isnan(column)
    if constants is None:
        x_mean, x_scale = np.array(x_moments).T
        y_mean, y_scale = np.array(y_moments).T
        if not options.scaling:
            x_mean, x_scale = np.zeros_like(x_mean), np.ones_like(x_scale)
            y_mean, y_scale = np.zeros_like(y_mean), np.ones_like(y_scale)
        constants = Constants(means, x_mean, x_scale, y_mean, y_scale)
    return Prepared(
        _scaled(features, constants.x_mean, constants.x_scale),
        _scaled(targets, constants.y_mean, constants.y_scale),
        np.column_stack([levels[name] for name in options.targets]),
        known,
        answered,
        ahead,
        ends,
        constants,
    )


def _ends(panel: Panel, options: WindowOptions) -> Any:
    """Return where targets end in each group (G,): what follows is known of the future alone."""
    ends = panel.bounds[1:].copy()
    if not options.future:
        return ends
    some = np.zeros(int(ends[-1]), np.bool_)
    for name in options.targets:
        some |= ~np.isnan(panel.values[name])
    for g, (start, end) in enumerate(zip(panel.bounds[:-1], panel.bounds[1:], strict=True)):
        there = np.flatnonzero(some[start:end])
        ends[g] = start + (there[-1] + 1 if len(there) else 0)
    return ends


def _check_values(panel: Panel, options: WindowOptions, to_come: Mask) -> None:
    """Raise a ValueError for values that are missing and may not be, or missing altogether."""
    counts: Mapping[str, Any] = {
        name: np.add.reduceat(~np.isnan(values), panel.bounds[:-1], dtype=np.intp)
        for name, values in panel.values.items()
    }
    for name, count in counts.items():
        if not count.all():
            g = int(count.argmin())
            whose = "" if panel.groups is None else f" of group {panel.groups[g]!r}"
            raise ValueError(f"frame: column {name!r}{whose} is empty, expected numbers in it")
    if options.missing != "error":
        return
    for name, values in panel.values.items():
        gaps = np.isnan(values)
        if name not in options.future:
            gaps &= ~to_come
        if gaps.any():
            number = int(gaps.sum())
            more = f", and in {number - 1} more" if number > 1 else ""
            raise ValueError(
                f"frame: column {name!r} has no value in {panel.place(int(gaps.argmax()))}{more}; "
                'missing="drop", "ffill", "interpolate" or "mean" says what to do'
            )


def _means(panel: Panel, early: Mask) -> dict[str, float]:
    """Return the mean of each column before the split."""
    means = {}
    for name, values in panel.values.items():
        known = values[early & ~np.isnan(values)]
        if not len(known):
            raise ValueError(f"split: column {name!r} has no value before it, expected some")
        means[name] = float(known.mean())
    return means


def _changed(
    name: str, column: Float64, panel: Panel, options: WindowOptions, base: Float64 | None = None
) -> Float64:
    """Return a column, of a target its difference to what it was some rows before."""
    if not options.difference or name not in options.targets:
        return column
    return column - _shifted(column if base is None else base, options.difference, panel)


def _shifted(column: Float64, count: int, panel: Panel) -> Float64:
    """Return what a column holds `count` rows before, in its group; NaN where there is no such."""
    shifted = np.full_like(column, np.nan)
    if count > 0:
        shifted[count:] = column[:-count]
    else:
        shifted[:count] = column[-count:]
    for start, end in zip(panel.bounds[:-1], panel.bounds[1:], strict=True):
        if count > 0:
            shifted[start : min(start + count, end)] = np.nan
        else:
            shifted[max(end + count, start) : end] = np.nan
    return shifted


def _moments(values: Float64) -> tuple[float, float]:
    """Return mean and standard deviation of the values that there are; 1 of a constant."""
    values = values[~np.isnan(values)]
    if not len(values) or values.min() == values.max():
        return (float(values[0]) if len(values) else 0.0), 1.0
    return float(values.mean()), float(values.std())


def _scaled(columns: list[Float64], mean: Float64, scale: Float64) -> Float64:
    """Return columns side by side, scaled; 0 where there is no value."""
    array = np.empty((len(columns[0]), len(columns)))
    for k, column in enumerate(columns):
        np.subtract(column, mean[k], out=array[:, k])
        array[:, k] /= scale[k]
        array[np.isnan(array[:, k]), k] = 0
    return array
