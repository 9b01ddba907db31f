"""The command ``quantize``: a model in 8, 16 or 24 bits, and what that costs and gains on data."""

from __future__ import annotations

import argparse
import json
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastlstm import quantization_report, quantize, weights
from fastlstm.cli._arrays import Array, add_reading, file_of, open_array, reading_of
from fastlstm.cli._messages import UserError, as_user_errors, note, say
from fastlstm.cli._models import (
    INPUTS,
    Model,
    add_layout,
    layout_of,
    load_model,
    open_input,
    present_steps,
)
from fastlstm.cli._options import add_force, add_json, add_quiet, number
from fastlstm.cli._outputs import new_file
from fastlstm.cli._pictures import check_picture, drawing
from fastlstm.cli._progress import counting
from fastlstm.cli._weights import errors_of_files
from fastlstm.quantization import QuantizationReport, plot_report
from fastlstm.quantization.metrics import METRICS
from fastlstm.reference.digits import LARGEST
from fastlstm.weights.formats import FORMATS, SUFFIXES, format_for

_OF_CLASSES = ("cross_entropy", "accuracy")

_DESCRIPTION = """\
Make products of 8, 16 or 24 bits of those of a trained LSTM in float32, write that to OUT, and
report what it costs and gains on DATA, inputs like those to come: size, speed on this machine,
differences from float32 by layer and over time, decisions that change, a metric. Without -o there
is the report alone. DATA also show whether the features of the input need factors of their own.

8 bits are the fastest, 16 are good to 1e-4 or so, 24 are about as exact as float32.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the description and the options."""
    parser.description = _DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help=f"weights: {', '.join(SUFFIXES)}")
    add("input", type=Path, metavar="DATA", help=INPUTS)
    written = " or ".join(suffix for each in FORMATS if each.bits for suffix in each.written)
    text = f"file to write: {written}, with the head and the initial state of MODEL"
    add("-o", "--output", type=Path, metavar="OUT", help=text)
    add_force(parser, "files that exist")
    bits = sorted(LARGEST)
    add("--bits", type=int, choices=bits, default=bits[0], help=f"of products ({bits[0]})")
    add("--name", help="of the LSTM in MODEL, where it holds several")
    add_layout(parser, "DATA")

    add = parser.add_argument_group("report").add_argument
    text = "the task's own, before and after: mse, rmse, or of classes cross_entropy, accuracy"
    add("--metric", choices=METRICS, metavar="NAME", help=text)
    text = "the right answers, for --metric: one at each step, or for each sequence"
    add("--targets", type=Path, metavar="Y", help=text)
    text = (
        "each number of an answer decides by being above X (0 if it is one; else the largest of "
        "several decides)"
    )
    add("--threshold", type=number(float), metavar="X", help=text)
    add("--no-speed", action="store_true", help="measure no speed, for a second or two a layer")
    add_json(parser)
    add("--plot", type=Path, metavar="FILE", help="write a picture of errors over time, by layer")
    add_quiet(parser)
    group = parser.add_argument_group("tables")
    add_reading(group, "zero", "mean", "forward", "drop", default=None)


class _Data(NamedTuple):
    """DATA and what belongs to them, in the layout of the model."""

    x: Array
    mask: Array | None
    targets: Array | None


def execute(args: argparse.Namespace) -> None:
    """Quantise, write, compare, report."""
    _check(args)
    with ExitStack() as files:
        picture = args.plot and files.enter_context(new_file(args.plot, args.force))
        if picture:
            check_picture(args.plot)
        output = args.output and files.enter_context(new_file(args.output, args.force))
        model = load_model(args)
        _check_layer(args.model, model.lstm)
        data = _read(args, model)
        with as_user_errors({"data": str(args.input)}):
            quantized = quantize(model.lstm, args.bits, _sequences(data, model.lstm.batch_first))
        if output:  # before the long comparison: it may be of a format that has no digits
            with (
                errors_of_files(f"{args.output}: "),
                warnings.catch_warnings(record=True) as caught,
            ):
                warnings.simplefilter("always")
                weights.save(quantized, output, head=model.head, state=model.state, overwrite=True)
            for warning in caught:
                note(f"warning: {warning.message}")
        report = _compare(args, model, quantized, data)
        if picture:
            with drawing(args.plot):
                plot_report(report, picture)
    _print(args, report)


def _check(args: argparse.Namespace) -> None:
    """Refuse what can't be before anything is read."""
    if (args.metric is None) != (args.targets is None):
        given, missing = "--metric", "--targets"
        if args.metric is None:
            given, missing = missing, given
        raise UserError(f"{given}: needs {missing}, too")
    if args.output is None:
        return
    with errors_of_files(f"{args.output}: "):
        format_for(args.output)
    for path in (args.model, args.input, args.targets, args.lengths, args.mask, args.plot):
        if path is not None and file_of(path).resolve() == args.output.resolve():
            raise UserError(f"{args.output}: is {path} itself, OUT is another file")


def _check_layer(path: Path, lstm: Any) -> None:
    if lstm.bits is not None:
        raise UserError(
            f"{path}: of {lstm.bits} bits already, expected the float32 model that it was made of"
        )
    if lstm.dtype != np.float32:
        raise UserError(
            f"{path}: of {lstm.dtype}, expected float32; fastlstm convert {path} "
            "FLOAT32.npz --dtype float32 makes it that"
        )


def _read(args: argparse.Namespace, model: Model) -> _Data:
    """Open DATA and what belongs to them."""
    lstm = model.lstm
    stored, _ = open_input(args, "DATA", lstm.input_size)
    is_batch_first = layout_of(args, "DATA", model.batch_first, stored)
    if stored.ndim == 3 and model.batch_first is None and not args.quiet:
        axes = "as asked, (B, T, I)" if is_batch_first else "(T, B, I), --batch-first is (B, T, I)"
        note(f"MODEL does not say which axis of DATA is time: {axes}")
    # Time first, then as the layer takes it.
    is_single, each_step = stored.ndim == 2, lstm.return_sequences
    x = stored[:, np.newaxis] if is_single else stored
    x = x.swapaxes(0, 1) if is_batch_first else x
    mask = present_steps(args, x, is_batch_first)
    if mask is not None:  # padding may be anything
        x = np.where(mask[:, :, np.newaxis], x, 0)
    x = x[:, 0] if is_single else _turned(x, lstm.batch_first)
    if mask is not None:
        mask = mask[:, 0] if is_single else _turned(mask, lstm.batch_first)
    targets = None if args.targets is None else _read_targets(args, is_single, lstm)
    if targets is not None and each_step and targets.ndim > 1 and not is_single:
        targets = _turned(targets, is_batch_first != lstm.batch_first)
    return _Data(x, mask, targets)


def _turned(array: Array, turn: bool) -> Array:
    return array.swapaxes(0, 1) if turn else array


def _read_targets(args: argparse.Namespace, is_single: bool, lstm: Any) -> Array:
    """Open Y: numbers, or whole numbers where they are classes."""
    y, table = open_array(args.targets, "--targets", reading_of(args, None), quiet=args.quiet)
    if args.metric in _OF_CLASSES and y.dtype.kind == "f":
        known = np.isfinite(y)  # in padding they need not be
        if not np.array_equal(y[known], np.rint(y[known])):
            raise UserError(f"{args.targets}: holds fractions, expected classes")
        y = np.where(known, y, -1).astype(np.int64)
    if table is None:
        return y
    if args.metric in _OF_CLASSES and y.shape[1] == 1:
        y = y[:, 0]
    # A table of one line is the answer for a sequence that is a table.
    return y[0] if is_single and not lstm.return_sequences and len(y) == 1 else y


def _sequences(data: _Data, batch_first: bool) -> Any:
    """Return DATA without padding: what factors are found on."""
    if data.mask is None:
        return data.x
    x = data.x[:, np.newaxis] if data.x.ndim == 2 else data.x
    mask = data.mask[:, np.newaxis] if data.x.ndim == 2 else data.mask
    if data.x.ndim == 3 and batch_first:
        x, mask = x.swapaxes(0, 1), mask.swapaxes(0, 1)
    return [x[mask[:, b], b] for b in range(x.shape[1])]


def _compare(args: argparse.Namespace, model: Model, quantized: Any, data: _Data) -> Any:
    """Return the report."""
    total = data.x.size // data.x.shape[-1]
    names = {"data": args.input, "mask": args.mask or args.lengths, "targets": args.targets}
    with (
        as_user_errors({name: str(path) for name, path in names.items()}),
        counting(total, "step", args.quiet) as advance,
    ):
        return quantization_report(
            model.lstm,
            quantized,
            data.x,
            state=model.state,
            mask=data.mask,
            head=model.head,
            threshold=args.threshold,
            targets=data.targets,
            metric=args.metric,
            timed=not args.no_speed,
            advance=advance,
        )


def _print(args: argparse.Namespace, report: QuantizationReport) -> None:
    if args.json:
        file = None if args.output is None else str(args.output)
        print(json.dumps({"file": file, **report.as_dict()}, indent=2))
        return
    for line in str(report).splitlines():
        say(line)
    for path in (args.output, args.plot):
        if path is not None:
            say(f"{path} is written")
