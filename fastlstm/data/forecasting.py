"""Forecasts of what follows a table, by a network that was trained on windows of another.

Letters: G groups, T steps of a window, F features, K targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm._arguments import as_size
from fastlstm.data.options import WindowOptions
from fastlstm.data.panel import Panel, as_panel
from fastlstm.data.preparing import Constants, Prepared, prepare
from fastlstm.data.tables import Float64, Table, Times
from fastlstm.data.times import SLACK, Rows, Step, shown
from fastlstm.data.windowing import KEY, undone
from fastlstm.training.network import Network


@dataclass(frozen=True, eq=False)
class Forecast:
    """What follows the last row of each group.

    Attributes
    ----------
    values : (G, horizon, K) float64
        In the unit of the table.
    targets : tuple of str
        K names.
    time : (G, horizon) or None
        When; None without times.
    groups : list or None
        G names; None without groups.
    history : (G, T, K) float64
        The last rows of the targets that are known, which `values` go on from; gaps as they were
        filled, NaN where there is nothing.
    history_time : (G, T) or None
    """

    values: Float64
    targets: tuple[str, ...]
    time: Times | None
    groups: list[Any] | None
    history: Float64
    history_time: Times | None

    def last_known(self, season: int = 1) -> Float64:
        """Return what is forecast by repeating the last season: (G, horizon, K).

        Raises
        ------
        TypeError, ValueError
            If the season is no integer, or longer than the history.
        """
        season = as_size("season", season, self.history.shape[1])
        return self.history[:, np.arange(self.values.shape[1]) % season - season]


def forecast(network: Network, frame: Any) -> Forecast:
    """Forecast the steps that follow a table.

    Parameters
    ----------
    network : fastlstm.training.Network
        Trained on windows, and made by `Windows.network`, or with their scaling and what
        `Windows.describe` says of them among its metadata.
    frame : table or array_like
        As `windows` takes it, with the columns of training. Of each group the last rows are read.
        Rows behind the last targets may have the inputs that are known ahead, and have to, if
        there are such inputs.

    Returns
    -------
    Forecast

    Raises
    ------
    TypeError, ValueError
        As from `windows`; if the network was not trained on windows, or times have another
        distance than in training.
    """
    options, means, distance = _read(network.metadata)
    panel = as_panel(
        Table(frame), options.columns, options.group, options.time, options.rule, options.aggregate
    )
    _check_distance(panel, distance)
    F, K = len(options.features), len(options.targets)
    # In the unit of the table: the network has the scaling.
    constants = Constants(means, np.zeros(F), np.ones(F), np.zeros(K), np.ones(K))
    prepared = prepare(panel, options, np.zeros(int(panel.bounds[-1]), np.bool_), constants)
    origins: Rows = np.asarray(prepared.ends)
    _check_windows(panel, prepared, options, origins)
    before = origins[:, np.newaxis] + np.arange(-options.length, 0)
    x = prepared.x[before]
    answers = np.asarray(network.predict(x), np.float64)
    if answers.shape != (len(x), options.horizon * K):
        raise ValueError(
            f"network: answers with shape {answers.shape}, expected {len(x), options.horizon * K}"
        )
    values = undone(answers.reshape(len(x), -1, K), prepared, options, origins)
    if not np.isfinite(values).all():
        g, h, k = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(
            f"frame: column {options.targets[k]!r} has no value in {panel.place(origins[g] - 1)}, "
            f"or before it, to which the change of step {h + 1} could be added"
        )
    time = history_time = None
    if panel.time is not None and distance is not None:
        time = distance.after(panel.time[origins - 1], options.horizon)
        history_time = panel.time[before]
    history = prepared.levels[before]
    return Forecast(values, options.targets, time, panel.groups, history, history_time)


def options_of(network: Network) -> WindowOptions:
    """Return the options of the windows that a network was trained on.

    Raises
    ------
    ValueError
        If it was not, or its metadata are damaged.
    """
    return _read(network.metadata)[0]


def _read(metadata: Mapping[str, Any]) -> tuple[WindowOptions, dict[str, float], Step | None]:
    """Return what `Windows.describe` wrote."""
    if KEY not in metadata:
        raise ValueError(
            "network: knows nothing of windows of a table, expected one that Windows.network made"
        )
    try:
        found = metadata[KEY]
        options = WindowOptions(**found["options"])
        means = {name: float(found["means"][name]) for name in options.columns}
        distance = None if found["distance"] is None else Step(**found["distance"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"network: its metadata are damaged: {error!r}") from error
    return options, means, distance


def _check_distance(panel: Panel, distance: Step | None) -> None:
    if (panel.step is None) != (distance is None):
        has = "no times" if panel.step is None else "times"
        other = "with" if panel.step is None else "without"
        raise ValueError(f"time: there are {has}, expected rows {other} them as in training")
    if panel.step is None or distance is None or panel.time is None or panel.step == distance:
        return
    inner = np.delete(np.arange(1, len(panel.time)), panel.bounds[1:-1] - 1)
    expected = distance.after(panel.time[inner - 1], 1)[:, 0]
    apart = panel.time[inner] != expected
    if panel.time.dtype.kind == "f":
        apart = np.abs(panel.time[inner] - expected) > SLACK * abs(distance.amount)
    # A few months may look like so many days.
    if apart.any():
        of_numbers = panel.time.dtype.kind != "M"
        raise ValueError(
            f"time: it is {shown(panel.step, of_numbers)} from row to row, expected "
            f"{shown(distance, of_numbers)} as in training"
        )


def _check_windows(panel: Panel, prepared: Prepared, options: WindowOptions, ends: Rows) -> None:
    """Raise a ValueError if a group is too short, or its last window lacks a value."""
    for g, (start, end) in enumerate(zip(panel.bounds[:-1], ends, strict=True)):
        whose = "" if panel.groups is None else f"group {panel.groups[g]!r}: "
        needed = options.length + options.difference
        if end - start < needed:
            raise ValueError(
                f"frame: {whose}has {end - start} rows, expected at least {needed} as in training"
            )
        window = slice(end - options.length, end)
        if prepared.known[window].all():
            continue
        row = int(window.start + prepared.known[window].argmin())
        rest = int(panel.bounds[g + 1] - end)
        if options.future and rest < options.horizon:
            raise ValueError(
                f"frame: {whose}{rest} rows follow the last target, expected {options.horizon}, "
                f"with what is known ahead: {', '.join(options.future)}"
            )
        raise ValueError(
            f"frame: the last window lacks a value of what it reads, in {panel.place(row)}"
        )
