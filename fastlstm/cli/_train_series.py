"""What ``train`` makes of series in a table: windows, a network that forecasts, and a comparison.

Letters: N windows, T rows of one, K targets.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm.cli._arrays import reading_of
from fastlstm.cli._fitting import Run, trainer_options
from fastlstm.cli._layer import make_layer
from fastlstm.cli._messages import UserError, as_user_errors, say
from fastlstm.cli._options import number
from fastlstm.cli._series import Columns, add_time_format, read_series, series_errors
from fastlstm.data import windows
from fastlstm.data.splitting import PARTS
from fastlstm.data.tables import Float64
from fastlstm.data.times import AGGREGATES
from fastlstm.training import Score, Trainer

#: What gaps of tables can become, by what the API calls it; for arrays, and for series.
_MISSING = {
    "drop": "drop",
    "forward": "ffill",
    "interpolate": "interpolate",
    "mean": "mean",
    None: "error",
}
FOR_ARRAYS, FOR_SERIES = ("zero", "mean", "forward"), tuple(filter(None, _MISSING))

#: Options of series alone, and of arrays alone, with what they are where nobody asks for them.
_OF_SERIES: dict[str, Any] = {
    "inputs": None, "future": [], "window": None, "horizon": None, "step": 1, "time": None,
    "time_format": None, "group": None, "split": None, "resample": None, "aggregate": None,
    "indicator": False, "difference": 0, "season": None,
}  # fmt: skip
_OF_ARRAYS: dict[str, Any] = {
    "batch_first": False, "task": None, "classes": None, "weights": None, "lengths": None,
    "mask": None, "validation": ["0.1"], "validation_lengths": None, "validation_mask": None,
    "normalise": False,
}  # fmt: skip
_SPLIT = [0.7, 0.85]


def add_series(parser: argparse.ArgumentParser) -> None:
    """Add the options of series."""
    add = parser.add_argument_group("series, of a table X alone").add_argument
    count = number(int, 1)
    add("--target", nargs="+", metavar="NAME", help="columns that are forecast")
    text = "columns that are read (all that hold numbers)"
    add("--inputs", nargs="+", metavar="NAME", help=text)
    text = "columns that are known ahead, as holidays are"
    add("--future", nargs="+", default=[], metavar="NAME", help=text)
    add("--window", type=count, metavar="N", help="rows that are read")
    add("--horizon", type=count, metavar="N", help="rows that are forecast (1)")
    text = "rows from the beginning of one window to that of the next (1)"
    add("--step", type=count, default=1, metavar="N", help=text)
    add("--time", metavar="NAME", help="column of times (that of dates, if there is one)")
    add_time_format(parser)
    text = "column that tells which of several series a row is of"
    add("--group", metavar="NAME", help=text)
    text = "where training ends, and where a test begins: shares of the time, or times; with one "
    text += "there is no test (0.7 0.85)"
    add("--split", nargs="+", metavar="WHEN", help=text)
    text = "put rows together by the calendar: 15min, h, D, W, M, ..."
    add("--resample", metavar="RULE", help=text)
    add("--aggregate", choices=AGGREGATES, help="how, with --resample (mean)")
    add("--indicator", action="store_true", help="read which values were missing, too")
    text = "read and forecast changes from N rows before: against trends, and seasons"
    add("--difference", type=count, default=0, metavar="N", help=text)
    text = "rows after which the series repeat, for comparison (found, if there is one)"
    add("--season", type=count, metavar="N", help=text)


def check_options(args: argparse.Namespace) -> None:
    """Refuse options that the other kind of data has."""
    if args.target is None:
        if args.y is None:
            raise UserError(
                "the following arguments are required: Y, or --target NAME to forecast a column "
                "of a table"
            )
        for name, default in _OF_SERIES.items():
            if getattr(args, name) != default:
                raise UserError(f"{_option(name)}: needs --target, the columns to forecast")
        allowed, kind = list(FOR_ARRAYS), "arrays"
    else:
        if args.y is not None:
            raise UserError(f"Y: got {args.y}, but --target chooses the answers out of X")
        for name, default in _OF_ARRAYS.items():
            if getattr(args, name) != default:
                raise UserError(f"{_option(name)}: is of arrays X and Y, not of --target")
        if args.window is None:
            raise UserError("--window: is missing, how many rows are read for a forecast")
        allowed, kind = list(FOR_SERIES), "series"
    if args.missing is not None and args.missing not in allowed:
        raise UserError(
            f"--missing: invalid choice: {args.missing!r}, of {kind} (choose {', '.join(allowed)})"
        )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


class SeriesRun(Run):
    """A run on the windows of a table."""

    before = "in standard deviations: "
    unit = "mean squared error, in standard deviations of the targets, squared"

    def __init__(self, args: argparse.Namespace) -> None:
        if args.horizon is None:
            args.horizon = 1
        columns = Columns(args.target, args.inputs, args.future, args.time, args.group)
        reading = reading_of(args, "nan")
        series = read_series(args.x, reading, columns, args.time_format, args.quiet)
        with series_errors(args.x, series):
            self._data = windows(
                series.frame,
                **series.parts,
                length=args.window,
                horizon=args.horizon,
                step=args.step,
                split=_as_split(args.split),
                missing=_MISSING[args.missing],
                indicator=args.indicator,
                resample=args.resample,
                aggregate=args.aggregate or "mean",
                difference=args.difference,
            )
        data, rng = self._data, np.random.default_rng(args.seed)
        with as_user_errors():
            lstm = make_layer(len(data.features), True, rng, args)
            self.trainer = Trainer(
                data.network(lstm, seed=rng),
                data.training,
                data.validation,
                **trainer_options(args),
            )
        self._seasons = [args.season or data.season(k) for k in range(len(data.targets))]
        for k, target in enumerate(data.targets):
            if not _known(self._naive(k, self._last_part()[1])).any():
                raise UserError(
                    f"--season: {self._seasons[k]} rows before what is forecast of {target} "
                    "nothing is known"
                )

    def in_unit(self, score: Score) -> Score:
        """Return a score as it is: targets of different units have none in common."""
        return score

    def finish(self) -> None:
        """Take the best parameters; the network has the scaling."""
        self.trainer.network.load_parameters(self.trainer.best_parameters)

    def report(self, output: Path, seconds: float) -> None:
        """Print the errors of the forecasts beside those of the naive ones."""
        data, network = self._data, self.trainer.network
        sequences = zip(PARTS, (data.training, data.validation, data.test), strict=True)
        counts = ", ".join(f"{name} {len(part)}" for name, part in sequences if part is not None)
        epochs = f"{len(self.trainer.history)} epochs, best {self.trainer.best_epoch}"
        say(f"{output}: {network.lstm}, head of {network.outputs}; {epochs}, {seconds:.3g} s")
        say(f"    windows of {data.length} rows, and {data.horizon} to forecast: {counts}")
        name, rows = self._last_part()
        answers = data.inverse(_answers(network, data.x, rows, self.trainer.batch_size), rows)
        truth = data.inverse(data.y[rows], rows)
        when = ""
        if (times := data.time) is not None:
            when = f", {_shown(times[rows[0], 0])} to {_shown(times[rows[-1], -1])}"
        chosen = "" if name == "test" else ", which chose the epoch"
        for k, target in enumerate(data.targets):
            say(f"    {target}, {name}{when}{chosen}:")
            self._compare(k, rows, answers[..., k], truth[..., k])

    def _last_part(self) -> tuple[str, Any]:
        """Return the part that is reported, and its windows."""
        data = self._data
        if data.test is None:
            return "validation", data.validation_rows
        return "test", data.test_rows

    def _naive(self, k: int, rows: Any) -> dict[str, Float64]:
        """Return forecasts (n, horizon) that need no model, NaN where there is none."""
        data, season = self._data, self._seasons[k]
        naive = {"persistence": data.last_known(1, rows)}
        if season is not None and season > 1:
            naive[f"seasonal persistence ({season})"] = data.last_known(season, rows)
            naive["the same with drift"] = data.last_known(season, rows, moved=True)
        forecasts = {name: forecast[..., k] for name, forecast in naive.items()}
        return forecasts | {"mean of training": np.full((len(rows), data.horizon), data.mean(k))}

    def _compare(self, k: int, rows: Any, answers: Float64, truth: Float64) -> None:
        """Print a table of errors (n, horizon) of a target, and what it comes to."""
        season, naive = self._seasons[k], self._naive(k, rows)
        known = _known(naive)
        wide = max(map(len, naive)) + 4
        say(f"        {'':{wide}}{'RMSE':>10}{'MAE':>10}")
        errors = {}
        for name, forecast in {"this model": answers, **naive}.items():
            difference = (forecast - truth)[known]
            errors[name] = rmse = float(np.sqrt(np.mean(difference**2)))
            say(f"        {name:{wide}}{rmse:>10.4g}{np.mean(np.abs(difference)):>10.4g}")
        own = errors.pop("this model")
        best = min(errors, key=lambda name: errors[name])
        if own < errors[best]:
            share = 1 - own / errors[best]
            say(f"        It beats the naive forecasts: {best} by {share:.0%} of its RMSE.")
            return
        text = f"        It does NOT beat {best}, which needs no model."
        if not self._data.options.difference:
            lags = [1, *([season] if season is not None and season > 1 else [])]
            text += " It may with " + " or ".join(f"--difference {lag}" for lag in lags) + "."
        say(text)


def _known(naive: dict[str, Float64]) -> Any:
    """Return for which windows there are all of the naive forecasts (n,)."""
    return np.all([np.isfinite(forecast).all(axis=1) for forecast in naive.values()], axis=0)


def _as_split(given: list[str] | None) -> list[Any]:
    """Return shares as numbers, and times as they are."""
    if given is None:
        return list(_SPLIT)
    split: list[Any] = []
    for text in given:
        try:
            value = float(text)
        except ValueError:
            split.append(text)
        else:
            split.append(value if 0 < value < 1 or not value.is_integer() else int(value))
    return split


def _answers(network: Any, x: Float64, rows: Any, size: int) -> Float64:
    """Return z (n, horizon * K) of some windows, so many at a time."""
    batches = [network(x[rows[start : start + size]]) for start in range(0, len(rows), size)]
    return np.concatenate(batches).astype(np.float64)


def _shown(time: Any) -> str:
    return str(time).removesuffix(".000000").removesuffix("T00:00:00")
