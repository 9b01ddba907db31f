"""What ``run`` makes of a model that was trained on series, and a table: the rows that follow."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from fastlstm.cli._arrays import STANDARD, reading_of
from fastlstm.cli._messages import UserError
from fastlstm.cli._outputs import new_file
from fastlstm.cli._series import Columns, read_series, series_errors
from fastlstm.cli._weights import choose, errors_of_files, read
from fastlstm.data import Forecast, forecast
from fastlstm.data.forecasting import options_of
from fastlstm.data.windowing import KEY
from fastlstm.training import Network

_DELIMITERS = {"": ",", ".csv": ",", ".tsv": "\t"}
#: Options of ``run`` that say nothing to a forecast.
_USELESS = ("lengths", "mask", "chunk", "no_head", "batch_first")


def forecaster_of(args: argparse.Namespace) -> Network | None:
    """Return the network in MODEL if it was trained on series, else None."""
    found = choose(read(args.model), args.name)
    described = found.network
    metadata = {} if described is None else described.options.get("metadata", {})
    if not isinstance(metadata, dict) or KEY not in metadata:
        return None
    with errors_of_files():
        return Network.load(args.model, name=args.name)


def run_forecast(network: Network, args: argparse.Namespace) -> None:
    """Write what follows INPUT, a line for each row of each group."""
    to_standard = str(args.output) == STANDARD
    suffix = "" if to_standard else args.output.suffix.lower()
    if suffix not in (*_DELIMITERS, ".npy") or not (suffix or to_standard):
        raise UserError(f"{args.output}: unknown suffix, OUTPUT can be .csv, .tsv or .npy")
    if useless := [name for name in _USELESS if getattr(args, name)]:
        option = f"--{useless[0].replace('_', '-')}"
        raise UserError(f"{option}: {args.model} forecasts series in tables, which have none")
    with errors_of_files(f"{args.model}: "):
        options = options_of(network)
    columns = Columns(options.targets, options.inputs, options.future, options.time, options.group)
    with new_file(args.output, args.force) as unfinished:
        reading = reading_of(args, "nan")
        series = read_series(args.input, reading, columns, args.time_format, args.quiet)
        if options.time is None:  # dates that training did not have, either
            series.frame.pop(series.parts["time"], None)
        with series_errors(args.input, series):
            found = forecast(network, series.frame)
        if suffix == ".npy":
            with unfinished.open("wb") as file:
                np.save(file, found.values)
        else:
            _write(unfinished, found, options.time, options.group, _DELIMITERS[suffix])
    if not to_standard:
        groups = "" if found.groups is None else f" of {len(found.groups)} series"
        print(f"{args.output}: {options.horizon} rows to come{groups}")


def _write(
    path: Path, found: Forecast, time: str | None, group: str | None, delimiter: str
) -> None:
    """Write a table with a line of names, and as many digits as a float32 has."""
    horizon = found.values.shape[1]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerow([*filter(None, (group, time or "step")), *found.targets])
        for g, values in enumerate(found.values):
            names = [] if found.groups is None else [found.groups[g]]
            times = range(1, horizon + 1) if found.time is None else _texts(found.time[g])
            for when, row in zip(times, values, strict=True):
                writer.writerow([*names, when, *(f"{value:.9g}" for value in row)])


def _texts(times: np.ndarray) -> list[str]:
    """Return times as ISO 8601, dates where that is all they are; numbers as they are."""
    if times.dtype.kind != "M":
        return [f"{time:.15g}" for time in times.tolist()]
    days = times.astype("datetime64[D]")
    if (days == times).all():
        return [str(day) for day in days]
    seconds = times.astype("datetime64[s]")
    return [str(time) for time in (seconds if (seconds == times).all() else times)]
