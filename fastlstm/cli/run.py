"""The command ``run``: a trained LSTM applied to data, or the demonstration."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastlstm.cli._arrays import add_reading
from fastlstm.cli._engine import add_engine
from fastlstm.cli._messages import UserError
from fastlstm.cli._models import INPUTS, add_layout, is_forecaster, load_network
from fastlstm.cli._options import add_force, add_json, add_quiet, number
from fastlstm.cli._series import add_time_format, is_table
from fastlstm.cli._weights import choose, read
from fastlstm.weights.formats import SUFFIXES

_HELP = " (see fastlstm run --help)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the description and the options."""
    parser.description = (
        "Without MODEL: run the bundled models on the bundled data and report the "
        "error, the speed and the agreement with the NumPy reference. "
        "With MODEL and INPUT: apply your own weights to your own data. Of a MODEL that "
        "`fastlstm train --target` made, and a table INPUT, OUTPUT is what follows the table."
    )
    add, count = parser.add_argument, number(int, 1)
    add(
        "model",
        nargs="?",
        type=Path,
        metavar="MODEL",
        help=f"weights: {', '.join(SUFFIXES)}",
    )
    add(
        "input",
        nargs="?",
        type=Path,
        metavar="INPUT",
        help=INPUTS,
    )
    add("--name", help="of the LSTM in MODEL, where it holds several")
    text = "file to write: .npy, .npz, .csv or .tsv; - is standard output, in the form of INPUT"
    add("-o", "--output", type=Path, help=text)
    add_force(parser)
    add_layout(parser, "INPUT", "what lies behind is padding, OUTPUT 0 there")
    add("--batch-size", type=count, default=64, metavar="N", help="sequences at a time (64)")
    add(
        "--chunk",
        type=count,
        metavar="N",
        help="time steps at a time (by default a million numbers' worth); "
        "what goes back in time always reads whole sequences",
    )
    add(
        "--no-head",
        action="store_true",
        help="leave out the linear layer on top that MODEL has, if it has one",
    )
    text = "write the logits of classes and labels, in place of these and their probabilities"
    add("--logits", action="store_true", help=text)
    add_quiet(parser)
    add = parser.add_argument_group("how good it is, of a network").add_argument
    text = "the right answers, in Y's own unit, classes by their names or by number: .npy, "
    text += ".npz:NAME or a table, as INPUT, with an answer at each step or for each sequence"
    add("--targets", type=Path, metavar="Y", help=text)
    text = "of the answers, (T, B) or (B,); 0 leaves one out"
    add("--weights", type=Path, metavar="W", help=text)
    text = "steps of a season: compare with what was that long ago, too"
    add("--season", type=count, metavar="N", help=text)
    add_json(parser)
    text = "write a picture: answers beside Y, or the confusion matrix; of a forecast what it goes "
    text += "on from; without MODEL the two demonstrations"
    add("--plot", type=Path, metavar="FILE", help=text)
    group = parser.add_argument_group("tables")
    add_reading(group, "nan", "zero", "mean", "forward", "drop", default="nan")
    add_time_format(group)
    add_engine(parser)


def execute(args: argparse.Namespace) -> int | None:
    """Run the demonstration, or the user's model on the user's data."""
    if args.model is None:
        if useless := _given(args).difference(("plot", "force", "quiet")):
            options = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(useless))
            raise UserError(f"{options}: needs MODEL and INPUT{_HELP}")
        from fastlstm.cli._demonstration import run_demonstration

        run_demonstration(args.plot, args.force)
        return None
    if args.input is None:
        raise UserError(f"INPUT is missing: fastlstm run MODEL INPUT -o OUTPUT{_HELP}")
    if args.output is None and args.targets is None and args.plot is None:
        raise UserError(f"-o OUTPUT is missing: fastlstm run MODEL INPUT -o OUTPUT{_HELP}")
    for option in ("weights", "season", "json"):
        if getattr(args, option) and args.targets is None:
            raise UserError(f"--{option}: needs --targets, the right answers")
    if args.engine is not None:
        for option in ("targets", "plot"):
            if getattr(args, option):
                raise UserError(f"--{option}: is of one file, not of --engine")
        from fastlstm.cli._many import run_many

        return run_many(args, run_file)
    for option in ("workers", "threads", "retries", "address", "features", "group", "time"):
        if getattr(args, option) is not None:
            raise UserError(f"--{option}: is of many files, see --engine")
    run_file(args)
    return None


def _given(args: argparse.Namespace) -> set[str]:
    """Return the options that are not as they are by default."""
    plain = argparse.ArgumentParser()
    add_arguments(plain)
    defaults = vars(plain.parse_args([]))
    return {name for name, default in defaults.items() if getattr(args, name) != default}


def run_file(args: argparse.Namespace) -> None:
    """Apply the user's model to one file."""
    found = choose(read(args.model), args.name)
    if is_table(args.input) and is_forecaster(found):
        from fastlstm.cli._forecast import run_forecast

        run_forecast(load_network(args), args)
    else:
        from fastlstm.cli._running import run_model

        run_model(args, found)
