"""The command ``run``: a trained LSTM applied to data, or the demonstration."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastlstm._linear import linear
from fastlstm.cli._arrays import STANDARD, Array, add_reading, open_array, reading_of
from fastlstm.cli._messages import UserError
from fastlstm.cli._options import add_force, add_quiet, number
from fastlstm.cli._outputs import WRITERS, Block, new_file
from fastlstm.cli._progress import counting
from fastlstm.cli._weights import build, choose, read
from fastlstm.weights.formats import SUFFIXES

if TYPE_CHECKING:
    from fastlstm.lstm import LSTM, BiLSTM
    from fastlstm.weights import Head

# Numbers held at a time of the input or of the output, whichever is wider, unless --chunk says more
# or less: enough that the cost of a call vanishes, little enough for any machine.
CHUNK_ELEMENTS = 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the description and the options."""
    parser.description = (
        "Without MODEL: run the bundled models on the bundled data and report the "
        "error, the speed and the agreement with the NumPy reference. "
        "With MODEL and INPUT: apply your own weights to your own data."
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
        help=".npy of shape (T, I) or (T, B, I), .npz:NAME, or a table of T lines with I numbers: "
        ".csv, .tsv or .txt; FILE:NAME,NAME,... chooses columns, - is standard input",
    )
    add("--name", help="of the LSTM in MODEL, where it holds several")
    text = "file to write: .npy, .csv or .tsv; - is standard output, in the form of INPUT"
    add("-o", "--output", type=Path, help=text)
    add_force(parser)
    add("--batch-first", action="store_true", help="three-dimensional INPUT is (B, T, I)")
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


def execute(args: argparse.Namespace) -> None:
    """Run the demonstration, or the user's model on the user's data."""
    if args.model is None:
        given = {"--output": args.output, "--chunk": args.chunk, "--no-head": args.no_head}
        given |= {"--batch-first": args.batch_first, "--name": args.name}
        if useless := [option for option, value in given.items() if value]:
            raise UserError(f"{', '.join(useless)}: needs MODEL and INPUT")
        from fastlstm.cli._demonstration import run_demonstration

        run_demonstration(args.plot, args.force)
    elif args.input is None:
        raise UserError("INPUT is missing: fastlstm run MODEL INPUT -o OUTPUT")
    elif args.output is None:
        raise UserError("-o OUTPUT is missing: fastlstm run MODEL INPUT -o OUTPUT")
    elif args.plot is not None:
        raise UserError("--plot works without MODEL only")
    else:
        _run_model(args)


def _run_model(args: argparse.Namespace) -> None:
    """Apply the weights in ``args.model`` to ``args.input`` and write ``args.output``."""
    to_standard = str(args.output) == STANDARD
    suffix = args.output.suffix.lower()
    if not to_standard and suffix not in WRITERS:
        raise UserError(f"{args.output}: unknown suffix, OUTPUT can be {' or '.join(WRITERS)}")
    with new_file(args.output, args.force) as partial:
        model = _load_model(args)
        lstm = model.lstm
        stored, is_table = _open_input(args, lstm.input_size)
        writer = WRITERS[suffix or (".csv" if is_table else ".npy")]
        batch_first = args.batch_first and stored.ndim == 3
        each_step = lstm.return_sequences
        kept = stored.shape[:-1] if each_step else _batch_shape(stored, batch_first)
        shape = (*kept, model.width)
        if writer.is_table and len(shape) == 3:
            raise UserError(f"{args.output}: a table cannot hold three dimensions, use .npy")

        # Every layout becomes (T, B, I), without a copy.
        x = stored[:, None] if stored.ndim == 2 else stored
        x = x.swapaxes(0, 1) if batch_first else x
        start = time.perf_counter()
        with counting(x.shape[0] * x.shape[1], "step", args.quiet) as advance:
            chunks = _apply(model, x, args.batch_size, args.chunk, advance)
            # One answer for a sequence: written as a sequence of answers, one for each.
            form, lines = (shape, batch_first) if each_step else ((x.shape[1], model.width), False)
            writer.write(partial, form, np.dtype(lstm.dtype), lines, chunks)
        seconds = time.perf_counter() - start
    if not to_standard:
        print(f"{args.output}: shape {form}, {np.dtype(lstm.dtype)}, {seconds:.3g} s")


def _batch_shape(stored: Array, batch_first: bool) -> tuple[int, ...]:
    return (1,) if stored.ndim == 2 else (stored.shape[0 if batch_first else 1],)


def _open_input(args: argparse.Namespace, input_size: int) -> tuple[Array, bool]:
    """Return the array in INPUT, (T, I), (T, B, I) or (B, T, I), and whether it was a table."""
    path, reading = args.input, reading_of(args, args.missing)
    x, table = open_array(path, "INPUT", reading, size=input_size, quiet=args.quiet)
    if x.dtype.kind not in "biuf":
        raise UserError(f"{path}: must hold real numbers, got {x.dtype}")
    if x.ndim not in (2, 3):
        raise UserError(f"{path}: must have two or three dimensions, got shape {x.shape}")
    if x.shape[-1] != input_size:
        raise UserError(
            f"{path}: shape {x.shape} ends in {x.shape[-1]}, "
            f"but the input size of {args.model} is {input_size}"
        )
    return x, table is not None


class _Model(NamedTuple):
    """What a file of weights makes of a sequence."""

    lstm: LSTM | BiLSTM
    head: Head | None
    state: tuple[Array, Array] | None  # (L*D, P), (L*D, H)

    @property
    def width(self) -> int:
        """N: numbers of an answer."""
        if self.head is not None:
            return len(self.head.bias)
        sides = 2 if self.lstm.num_directions == 2 and self.lstm.merge_mode == "concat" else 1
        return sides * self.lstm.output_size


def _load_model(args: argparse.Namespace) -> _Model:
    """Return the layer in a weights file, its head if there is one and it is wanted, its state."""
    found = choose(read(args.model), args.name)
    lstm = build(args.model, found, batch_first=False)
    if lstm.merge_mode is None:
        raise UserError(f"{args.model}: merge_mode=None gives two results, run writes one")
    return _Model(lstm, None if args.no_head else found.head, found.state)


def _apply(
    model: _Model,
    x: Array,
    batch_size: int,
    chunk: int | None,
    advance: Callable[[int], object],
) -> Iterator[Block]:
    """Run a model over `x` (T, B, I), a block of sequences and time at a time.

    Yields the time slice, the batch slice and the output (t, b, N) of each block; of a model that
    answers once for a sequence, that slice of sequences as time, and (b, 1, N). The bits do not
    depend on how the blocks are cut, because those of the layer and of the head do not.
    """
    lstm, head, initial = model
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
            block = np.ascontiguousarray(x[times, batch], dtype=lstm.dtype)
            y, state = lstm(block, state)
            z = y if head is None else linear(y, head.weight, head.bias, lstm.isa)
            yield (times, batch, z) if lstm.return_sequences else (batch, slice(0, 1), z[:, None])
            advance(len(block) * sequences)
