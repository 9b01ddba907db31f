"""What `run` makes of a model that was trained on series, and a table: the rows that follow."""

from __future__ import annotations

import argparse
import csv
import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm import plot
from fastlstm.cli._arrays import STANDARD, reading_of
from fastlstm.cli._messages import UserError, as_user_errors, say
from fastlstm.cli._outputs import new_file
from fastlstm.cli._pictures import check_picture, drawing, prefix_title, save_picture
from fastlstm.cli._series import Columns, Series, read_series, series_errors
from fastlstm.cli._weights import errors_of_files
from fastlstm.data import Forecast, forecast
from fastlstm.data.forecasting import options_of
from fastlstm.data.options import WindowOptions
from fastlstm.data.panel import as_panel
from fastlstm.data.tables import Float64, Table
from fastlstm.training import Evaluation, Network
from fastlstm.training.evaluation import beside_naive, of_numbers

#: Series that are drawn.
_DRAWN = 4
_DELIMITERS = {"": ",", ".csv": ",", ".tsv": "\t"}
#: Options of ``run`` that say nothing to a forecast.
_USELESS = ("lengths", "mask", "chunk", "no_head", "batch_first", "logits", "weights")


def run_forecast(network: Network, args: argparse.Namespace) -> None:
    """Write what follows INPUT, a line for each row of each group; compare it, draw it."""
    to_standard = args.output is not None and str(args.output) == STANDARD
    suffix = "" if args.output is None or to_standard else args.output.suffix.lower()
    if args.output is not None and suffix not in (*_DELIMITERS, ".npy"):
        raise UserError(f"{args.output}: unknown suffix, OUTPUT can be .csv, .tsv or .npy")
    if useless := [name for name in _USELESS if getattr(args, name)]:
        option = f"--{useless[0].replace('_', '-')}"
        raise UserError(f"{option}: {args.model} forecasts series in tables, which have none")
    with errors_of_files(f"{args.model}: "):
        options = options_of(network)
    if args.missing != "nan":
        raise UserError(
            f"--missing: got {args.missing}, but {args.model} does with gaps what was asked for in "
            f"training: {options.missing}"
        )
    columns = Columns(options.targets, options.inputs, options.future, options.time, options.group)
    with ExitStack() as files:
        picture = args.plot and files.enter_context(new_file(args.plot, args.force))
        if picture:
            check_picture(args.plot)
        output = args.output and files.enter_context(new_file(args.output, args.force))
        series = _read(args.input, columns, options, args)
        with series_errors(args.input, series):
            found = forecast(network, series.frame)
        comparison = ForecastComparison(args, network, options, found)
        if output:
            if suffix == ".npy":
                with output.open("wb") as file:
                    np.save(file, found.values)
            else:
                _write(output, found, options, _DELIMITERS[suffix], series.in_utc)
        if picture:
            with drawing(args.plot):
                comparison.draw(picture)
    if args.output is not None and not to_standard and not args.json and args.engine is None:
        groups = "" if found.groups is None else f" of {len(found.groups)} series"
        say(f"{args.output}: {options.horizon} rows to come{groups}")
    comparison.print()


def _read(path: Path, columns: Columns, options: WindowOptions, args: argparse.Namespace) -> Series:
    """Read a table of series, with the times that training had."""
    series = read_series(path, reading_of(args, "nan"), columns, args.time_format, args.quiet)
    if options.time is None:  # dates that training did not have, either
        series.frame.pop(series.parts["time"], None)
    return series


class ForecastComparison:
    """Forecasts beside what came, if that is known, and beside those without a model."""

    def __init__(
        self, args: argparse.Namespace, network: Network, options: WindowOptions, found: Forecast
    ) -> None:
        self._args, self._forecast = args, found
        self._evaluations: dict[str, Evaluation] = {}
        self._truth: Float64 | None = None
        if args.targets is None:
            return
        self._truth = _truth(args, options, found)
        self._naive = {"persistence": found.last_known()}
        if args.season is not None:
            with as_user_errors({"season": "--season"}):
                self._naive["seasonal persistence"] = found.last_known(args.season)
        scales = np.ones(found.values[0].shape)
        if network.scaling is not None:
            scales *= np.broadcast_to(network.scaling.y_scale, scales.size).reshape(scales.shape)
        for k, target in enumerate(found.targets):
            rows = self._truth[..., k].reshape(-1, 1)
            known = np.isfinite(rows[:, 0])
            if not known.any():
                raise UserError(f"{args.targets}: has no value of {target} for the rows to come")
            of_target = [each[..., k].reshape(-1, 1)[known] for each in self._naive.values()]
            answers, rows = found.values[..., k].reshape(-1, 1)[known], rows[known]
            weights = np.ones(len(rows))
            rmse, mae = of_numbers(rows, answers, weights)
            scale = np.broadcast_to(scales[:, k], found.values.shape[:2]).reshape(-1, 1)[known]
            loss, _ = of_numbers(rows / scale, answers / scale, weights)
            naive = dict(zip(self._naive, of_target, strict=True))
            self._evaluations[target] = Evaluation(
                float(len(rows)), loss**2, rmse, mae, **beside_naive(rows, answers, naive, weights)
            )

    def print(self) -> None:
        """Print the figures, if what came is known."""
        if self._args.json:
            file = None if self._args.output is None else str(self._args.output)
            figures = {name: each.as_dict() for name, each in self._evaluations.items()}
            print(json.dumps({"file": file, "evaluation": figures}, indent=2))
            return
        for target, each in self._evaluations.items():
            for line in [f"{target}:", *str(each).splitlines()]:
                say(line)

    def draw(self, path: Path) -> None:
        """Draw the first series: what is known, what is forecast, and what came."""
        found = self._forecast
        names = [None] if found.groups is None else found.groups
        places = [(g, k) for g in range(len(names)) for k in range(len(found.targets))]
        panels = [partial(self._draw, g, k, names[g]) for g, k in places[:_DRAWN]]
        save_picture(path, panels, f"{self._args.model} on {self._args.input}")

    def _draw(self, g: int, k: int, group: Any, axes: Any) -> Any:
        found, target = self._forecast, self._forecast.targets[k]
        known, values = found.history[g, :, k], found.values[g, :, k]
        before = np.full(len(known), np.nan)
        steps = np.arange(-len(known), len(values)) + 1
        if found.time is not None and found.history_time is not None:
            steps = np.concatenate([found.history_time[g], found.time[g]])
        naive, came = None, np.full(len(values), np.nan)
        if self._truth is not None:
            came = self._truth[g, :, k]
            each = self._evaluations[target]
            if (name := each.best_naive) is not None:
                label = f"{name}: RMSE {each.naive[name][0]:.3g}, model {each.rmse:.3g}"
                naive = label, np.concatenate([before, self._naive[name][g, :, k]])
        plot.forecast(
            np.concatenate([before, values]),
            truth=np.concatenate([known, came]),
            naive=naive,
            steps=steps,
            ax=axes,
        )
        axes.set_xlabel("step" if found.time is None else "time")
        return prefix_title(axes, target if group is None else f"{target}, {group}")


def _truth(args: argparse.Namespace, options: WindowOptions, found: Forecast) -> Float64:
    """Return what came (G, horizon, K), NaN where it is not known."""
    columns = Columns(options.targets, options.targets, [], options.time, options.group)
    series = _read(args.targets, columns, options, args)
    frame = series.frame
    truth = np.full(found.values.shape, np.nan)
    groups = [None] if found.groups is None else found.groups
    of_rows = frame[options.group] if options.group is not None else [None] * len(series.lines)
    if options.rule is not None:  # the steps of the calendar that rows fall into
        with series_errors(args.targets, series):
            panel = as_panel(
                Table(frame),
                dict.fromkeys(options.targets, "targets"),
                options.group,
                options.time,
                options.rule,
                options.aggregate,
            )
        assert panel.time is not None
        of_rows = np.repeat(np.array(panel.groups or [None], object), np.diff(panel.bounds))
        frame = {**panel.values, str(options.time): panel.time}
    for g, group in enumerate(groups):
        rows = np.array([i for i, each in enumerate(of_rows) if each == group], np.intp)
        values = np.column_stack([frame[name][rows] for name in options.targets])
        if found.time is None or options.time is None:
            if len(values) > options.horizon:
                of_group = "" if group is None else f" of {group}"
                raise UserError(
                    f"{args.targets}: has {len(values)} rows{of_group} and no times, which would "
                    f"tell the {options.horizon} to come; expected these alone"
                )
            truth[g, : len(values)] = values
            continue
        times = frame[options.time][rows]
        for h, when in enumerate(found.time[g]):
            if (at := np.flatnonzero(times == when)).size > 1:
                (shown,) = _texts(found.time[g, h : h + 1], False)
                raise UserError(
                    f"{args.targets}: has {options.time} {shown} {at.size} times, expected once"
                )
            if at.size:
                truth[g, h] = values[at[0]]
    return truth


def _write(
    path: Path, found: Forecast, options: WindowOptions, delimiter: str, in_utc: bool
) -> None:
    """Write a table with a line of names, and as many digits as a float32 has."""
    horizon = found.values.shape[1]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerow([*filter(None, (options.group, options.time or "step")), *found.targets])
        for g, values in enumerate(found.values):
            names = [] if found.groups is None else [found.groups[g]]
            steps = range(1, horizon + 1)
            times = steps if found.time is None else _texts(found.time[g], in_utc)
            for when, row in zip(times, values, strict=True):
                writer.writerow([*names, when, *(f"{value:.9g}" for value in row)])


def _texts(times: np.ndarray, in_utc: bool) -> list[str]:
    """Return times as ISO 8601, dates where that is all they are; numbers as they are."""
    if times.dtype.kind != "M":
        return [f"{time:.15g}" for time in times.tolist()]
    days = times.astype("datetime64[D]")
    if (days == times).all() and not in_utc:
        return [str(day) for day in days]
    seconds = times.astype("datetime64[s]")
    shown = seconds if (seconds == times).all() else times
    return [f"{time}{'Z' * in_utc}" for time in shown]
