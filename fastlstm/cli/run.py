"""The command ``run``: a trained LSTM applied to data, or the demonstration."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from fastlstm._linear import linear
from fastlstm._steps import as_steps
from fastlstm.cli._arrays import STANDARD, Array, add_reading
from fastlstm.cli._messages import UserError, note
from fastlstm.cli._models import (
    INPUTS,
    Model,
    add_layout,
    layout_of,
    load_model,
    open_input,
    present_steps,
)
from fastlstm.cli._options import add_force, add_quiet, number
from fastlstm.cli._outputs import WRITERS, Block, new_file
from fastlstm.cli._progress import counting
from fastlstm.cli._series import add_time_format, is_table
from fastlstm.weights.formats import SUFFIXES

# Numbers held at a time of the input or of the output, whichever is wider, unless --chunk says more
# or less: enough that the cost of a call vanishes, little enough for any machine.
CHUNK_ELEMENTS = 2**20

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
    text = "file to write: .npy, .csv or .tsv; - is standard output, in the form of INPUT"
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
    add("--plot", type=Path, metavar="FILE", help="without MODEL: write a picture")
    add_quiet(parser)
    group = parser.add_argument_group("tables")
    add_reading(group, "nan", "zero", "mean", "forward", "drop", default="nan")
    add_time_format(group)


def execute(args: argparse.Namespace) -> None:
    """Run the demonstration, or the user's model on the user's data."""
    if args.model is None:
        given = {"--output": args.output, "--chunk": args.chunk, "--no-head": args.no_head}
        given |= {"--batch-first": args.batch_first, "--name": args.name}
        given |= {"--lengths": args.lengths, "--mask": args.mask}
        if useless := [option for option, value in given.items() if value]:
            raise UserError(f"{', '.join(useless)}: needs MODEL and INPUT{_HELP}")
        from fastlstm.cli._demonstration import run_demonstration

        run_demonstration(args.plot, args.force)
    elif args.input is None:
        raise UserError(f"INPUT is missing: fastlstm run MODEL INPUT -o OUTPUT{_HELP}")
    elif args.output is None:
        raise UserError(f"-o OUTPUT is missing: fastlstm run MODEL INPUT -o OUTPUT{_HELP}")
    elif args.plot is not None:
        raise UserError(f"--plot works without MODEL only{_HELP}")
    elif not (is_table(args.input) and _did_forecast(args)):
        _run_model(args)


def _did_forecast(args: argparse.Namespace) -> bool:
    """Forecast what follows a table, and say so, if the model was trained on series."""
    from fastlstm.cli._forecast import forecaster_of, run_forecast

    network = forecaster_of(args)
    if network is not None:
        run_forecast(network, args)
    return network is not None


def _run_model(args: argparse.Namespace) -> None:
    """Apply the weights in ``args.model`` to ``args.input`` and write ``args.output``."""
    to_standard = str(args.output) == STANDARD
    suffix = args.output.suffix.lower()
    if not to_standard and suffix not in WRITERS:
        raise UserError(f"{args.output}: unknown suffix, OUTPUT can be {' or '.join(WRITERS)}")
    with new_file(args.output, args.force) as partial:
        model = load_model(args, head=not args.no_head, batch_first=False)
        lstm = model.lstm
        if lstm.merge_mode is None:
            raise UserError(f"{args.model}: merge_mode=None gives two results, run writes one")
        stored, is_table = open_input(args, "INPUT", lstm.input_size)
        writer = WRITERS[suffix or (".csv" if is_table else ".npy")]
        batch_first = layout_of(args, "INPUT", model, stored)
        each_step = lstm.return_sequences
        kept = stored.shape[:-1] if each_step else _batch_shape(stored, batch_first)
        shape = (*kept, model.width)
        if writer.is_table and len(shape) == 3:
            raise UserError(f"{args.output}: a table cannot hold three dimensions, use .npy")

        # Every layout becomes (T, B, I), without a copy.
        x = stored[:, None] if stored.ndim == 2 else stored
        x = x.swapaxes(0, 1) if batch_first else x
        present = present_steps(args, x, batch_first)
        start = time.perf_counter()
        with counting(x.shape[0] * x.shape[1], "step", args.quiet) as advance:
            chunks = _apply(model, x, present, args.batch_size, args.chunk, advance)
            # One answer for a sequence: written as a sequence of answers, one for each.
            form, lines = (shape, batch_first) if each_step else ((x.shape[1], model.width), False)
            writer.write(partial, form, np.dtype(lstm.dtype), lines, chunks)
        seconds = time.perf_counter() - start
    layout = ""
    if stored.ndim == 3 and model.batch_first is None:
        axes = "as asked, (B, T, I)" if batch_first else "(T, B, I), --batch-first is (B, T, I)"
        layout = f"; MODEL does not say which axis is time: {axes}"
    report = f"{args.output}: shape {form}, {np.dtype(lstm.dtype)}, {seconds:.3g} s{layout}"
    if not to_standard:
        print(report)
    elif layout and not args.quiet:
        note(report)


def _batch_shape(stored: Array, batch_first: bool) -> tuple[int, ...]:
    return (1,) if stored.ndim == 2 else (stored.shape[0 if batch_first else 1],)


def _apply(
    model: Model,
    x: Array,
    present: Array | None,
    batch_size: int,
    chunk: int | None,
    advance: Callable[[int], object],
) -> Iterator[Block]:
    """Run a model over `x` (T, B, I), a block of sequences and time at a time.

    Steps that are not ``present`` (T, B) are left out, and their output is 0.

    Yields the time slice, the batch slice and the output (t, b, N) of each block; of a model that
    answers once for a sequence, that slice of sequences as time, and (b, 1, N). The bits do not
    depend on how the blocks are cut, because those of the layer and of the head do not.
    """
    lstm, initial = model.lstm, model.state
    T, B, I = x.shape
    width = max(I, lstm.num_directions * lstm.output_size)
    for b in range(0, B, batch_size):
        batch = slice(b, min(b + batch_size, B))
        sequences = batch.stop - batch.start
        steps = chunk or max(1, CHUNK_ELEMENTS // (width * sequences))
        if lstm.needs_whole_sequences or not lstm.return_sequences:
            steps = max(1, T)
        state = None
        if initial is not None:
            h_0, c_0 = (np.repeat(array[:, None], sequences, axis=1) for array in initial)
            state = h_0, c_0
        for t in range(0, T if lstm.return_sequences else 1, steps):
            times = slice(t, min(t + steps, T))
            exist = None if present is None else present[times, batch]
            z, state = _apply_to_block(model, x[times, batch], exist, state)
            yield (times, batch, z) if lstm.return_sequences else (batch, slice(0, 1), z[:, None])
            advance((times.stop - t) * sequences)


def _apply_to_block(
    model: Model, x: Array, present: Array | None, state: tuple[Array, Array] | None
) -> tuple[Array, tuple[Array, Array]]:
    """Return the output (t, b, N), or (b, N) of a last one alone, and the state after it."""
    lstm, head, *_ = model
    steps = as_steps(None, present, (x.shape[0], x.shape[1]), False)
    if steps is None:
        y, state = lstm(np.ascontiguousarray(x, dtype=lstm.dtype), state)
    else:
        y, state = lstm(steps.gather(x), state, lengths=steps.lengths)
        if lstm.return_sequences:
            y = y[steps.present(len(y))]
    z: Array = y if head is None else linear(y, head.weight, head.bias, lstm.isa)
    if steps is None or not lstm.return_sequences:
        return z, state
    out = np.zeros((*x.shape[:2], z.shape[-1]), z.dtype)
    steps.scatter(z, out)
    return out, state
