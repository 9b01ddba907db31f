"""The command line: run, train, inspect, convert, verify, info, bench.

``fastlstm`` or ``python -m fastlstm``. Exit codes: 0 all well, 1 an LSTM that ``verify`` found to
differ, 2 a mistake in the arguments or files (one line on stderr, no traceback), 130 interrupted
with Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from fastlstm import train_cli, weights_cli
from fastlstm._files import (
    Array,
    Block,
    UserError,
    new_file,
    open_input,
    printable,
    write_csv,
    write_npy,
)

if TYPE_CHECKING:
    from fastlstm.demo import Comparison, ForecastResult, GapFillResult
    from fastlstm.lstm import LSTM, BiLSTM
    from fastlstm.weights import Head

__all__ = ["main"]

# Numbers held at a time of the input or of the output, whichever is wider, unless --chunk says more
# or less: enough that the cost of a call vanishes, little enough for any machine.
CHUNK_ELEMENTS = 2**20


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    int
        Exit code: 0, 1, 2 or 130.

    Raises
    ------
    SystemExit
        From argparse, for ``--help`` and ``--version`` (code 0) and bad options (code 2); when
        the process is asked to terminate (code 143).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with _termination_unwinds():
            if arguments[:1] == ["bench"]:  # its options are its own: argparse must not see them
                return _bench(arguments[1:])
            args = _parser().parse_args(arguments)
            return args.command(args) or 0
    except KeyboardInterrupt:
        print("fastlstm: interrupted", file=sys.stderr)
        return 130
    except (UserError, OSError, ImportError, MemoryError) as error:
        message = printable(" ".join(str(error).splitlines())) or type(error).__name__
        print(f"fastlstm: error: {message}", file=sys.stderr)
        return 2


@contextmanager
def _termination_unwinds() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does, so that no partial file stays behind."""

    def leave(number: int, frame: object) -> NoReturn:
        sys.exit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"fastlstm: error: {message} (see {self.prog} --help)\n")


class _Version(argparse.Action):
    """``--version``, which imports the package only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from fastlstm import __version__

        print(f"fastlstm {__version__}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fastlstm", description="LSTMs on CPUs.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")

    run = commands.add_parser(
        "run",
        help="apply a trained LSTM to data",
        description="Without MODEL: run the bundled models on the bundled data and report the "
        "error, the speed and the agreement with the NumPy reference. "
        "With MODEL and INPUT: apply your own weights to your own data.",
    )
    run.set_defaults(command=_run)
    run.add_argument(
        "model",
        nargs="?",
        type=Path,
        metavar="MODEL",
        help="weights: .npz, .safetensors, .pt, .pth, .onnx, .keras, .h5 and what else "
        "`fastlstm inspect` reads",
    )
    run.add_argument(
        "input",
        nargs="?",
        type=Path,
        metavar="INPUT",
        help=".npy of shape (T, I) or (T, B, I), or .csv of T lines with I numbers, "
        "with or without a line of names first",
    )
    run.add_argument("--name", help="of the LSTM in MODEL, where it holds several")
    run.add_argument("-o", "--output", type=Path, help="file to write: .npy or .csv")
    run.add_argument("--force", action="store_true", help="replace a file that exists")
    run.add_argument(
        "--batch-first", action="store_true", help="three-dimensional INPUT is (B, T, I)"
    )
    run.add_argument(
        "--batch-size", type=_positive, default=64, metavar="N", help="sequences at a time (64)"
    )
    run.add_argument(
        "--chunk",
        type=_positive,
        metavar="N",
        help="time steps at a time (by default a million numbers' worth); "
        "what goes back in time always reads whole sequences",
    )
    run.add_argument(
        "--no-head",
        action="store_true",
        help="leave out the linear layer on top that MODEL has, if it has one",
    )
    run.add_argument("--plot", type=Path, metavar="FILE", help="without MODEL: write a picture")
    run.add_argument("--quiet", action="store_true", help="no progress bar")

    train_cli.add_parser(commands)
    weights_cli.add_parsers(commands)

    info = commands.add_parser("info", help="version, instruction sets, caches, compiler")
    info.set_defaults(command=_info)
    info.add_argument("--json", action="store_true", help="as JSON")

    commands.add_parser(
        "bench", help="measure speed against the reference and installed peers", add_help=False
    )
    return parser


def _positive(text: str) -> int:
    """Parse an option that must be a whole number of at least 1."""
    value = int(text)  # argparse reports the ValueError
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


_positive.__name__ = "whole number"  # argparse: "invalid whole number value: 'x'"


# run


def _run(args: argparse.Namespace) -> None:
    """Choose: the demonstration, or the user's model on the user's data."""
    if args.model is None:
        given = {"--output": args.output, "--chunk": args.chunk, "--no-head": args.no_head}
        given |= {"--batch-first": args.batch_first, "--name": args.name}
        if useless := [option for option, value in given.items() if value]:
            raise UserError(f"{', '.join(useless)}: needs MODEL and INPUT")
        _run_demo(args.plot, args.force)
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
    write = {".npy": write_npy, ".csv": write_csv}.get(args.output.suffix.lower())
    if write is None:
        raise UserError(f"{args.output}: unknown suffix, OUTPUT can be .npy or .csv")
    with new_file(args.output, args.force) as partial:
        model = _load_model(args)
        lstm = model.lstm
        stored = open_input(args.input, lstm.input_size, args.model)
        batch_first = args.batch_first and stored.ndim == 3
        each_step = lstm.return_sequences
        kept = stored.shape[:-1] if each_step else _batch_shape(stored, batch_first)
        shape = (*kept, model.width)
        if write is write_csv and len(shape) == 3:
            raise UserError(f"{args.output}: .csv cannot hold three dimensions, use .npy")

        # Every layout becomes (T, B, I), without a copy.
        x = stored[:, None] if stored.ndim == 2 else stored
        x = x.swapaxes(0, 1) if batch_first else x
        start = time.perf_counter()
        with _progress(x.shape[0] * x.shape[1], args.quiet) as advance:
            chunks = _apply(model, x, args.batch_size, args.chunk, advance)
            # One answer for a sequence: written as a sequence of answers, one for each.
            form, lines = (shape, batch_first) if each_step else ((x.shape[1], model.width), False)
            write(partial, form, np.dtype(lstm.dtype), lines, chunks)
        seconds = time.perf_counter() - start
    print(f"{args.output}: shape {form}, {np.dtype(lstm.dtype)}, {seconds:.3g} s")


def _batch_shape(stored: Array, batch_first: bool) -> tuple[int, ...]:
    return (1,) if stored.ndim == 2 else (stored.shape[0 if batch_first else 1],)


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
    found = weights_cli.choose(weights_cli.read(args.model), args.name)
    lstm = weights_cli.build(args.model, found, batch_first=False)
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
    depend on how the blocks are cut, because those of the layer do not.
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
            z = y if head is None else _apply_head(head, y)
            yield (times, batch, z) if lstm.return_sequences else (batch, slice(0, 1), z[:, None])
            advance(len(block) * sequences)


def _apply_head(head: Head, y: Array) -> Array:
    """``y @ head.weight.T + head.bias`` for y (..., D*P), in an order that never changes.

    A matrix product from NumPy may round differently for another number of rows, and with it the
    result would depend on how the input was cut. One feature after the other does not.
    """
    z = np.empty((*y.shape[:-1], len(head.bias)), y.dtype)
    z[...] = head.bias
    for k in range(y.shape[-1]):
        z += y[..., k, None] * head.weight[:, k]
    return z


@contextmanager
def _progress(total: int, quiet: bool) -> Iterator[Callable[[int], object]]:
    """Show a bar on stderr, counting sequences times steps; percentages where tqdm is missing."""
    if quiet:
        yield lambda _: None
        return
    try:
        from tqdm import tqdm
    except ImportError:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            print(f"\r{100 * done // total}%", end="", file=sys.stderr, flush=True)

        try:
            yield advance
        finally:
            print(file=sys.stderr)
        return
    with tqdm(total=total, unit="step", unit_scale=True, file=sys.stderr) as bar:
        yield bar.update


# run without MODEL: the demonstration


def _run_demo(picture: Path | None, force: bool) -> None:
    """Report what the bundled models do on held-out data; draw the forecast if asked to."""
    from fastlstm import demo

    if picture is None:
        forecast = demo.run_forecast()
    else:
        with new_file(picture, force) as partial:
            forecast = demo.run_forecast()
            try:
                demo.plot(forecast, partial)
            except ValueError as error:  # a suffix that matplotlib does not know
                raise UserError(f"{picture}: {error}") from error
    print(f"Sea-surface temperature off Peru, forecast {forecast.horizon} months ahead")
    _print_scores(forecast, "LSTM")
    print("  RMSE by months ahead")
    methods = list(next(iter(forecast.rmse_by_horizon.values())))
    _print_row("", *(f"{horizon:7}" for horizon in forecast.rmse_by_horizon))
    for method in methods:
        errors = (scores[method] for scores in forecast.rmse_by_horizon.values())
        _print_row(method, *(f"{error:7.3f}" for error in errors))
    _print_comparison(forecast.comparison)

    gapfill = demo.run_gapfill()
    print(f"\nThe same series, gaps of {gapfill.gap_length} months filled")
    _print_scores(gapfill, "BiLSTM")
    _print_comparison(gapfill.comparison)
    if picture is not None:
        print(f"\n{picture}: forecast against truth")


def _print_scores(result: ForecastResult | GapFillResult, name: str) -> None:
    """Print the held-out errors of the model and of its baselines."""
    first, last = result.dates[0], result.dates[-1]
    print(f"  held out: {len(result.dates)} months, {first} to {last}; errors in degrees Celsius")
    _print_row("", "   RMSE", "    MAE")
    for method, score in {name: result.score, **result.baseline_scores}.items():
        _print_row(method, f"{score.rmse:7.3f}", f"{score.mae:7.3f}")


def _print_comparison(comparison: Comparison) -> None:
    """Print the time beside the reference's on the same work, and the largest difference."""
    print(
        f"  {comparison.layer} on x of shape (T, B, I) = {comparison.shape}\n"
        f"    fastlstm         {1e3 * comparison.seconds:9.3f} ms\n"
        f"    NumPy reference  {1e3 * comparison.reference_seconds:9.3f} ms, "
        f"{comparison.speedup:.0f} times as long (medians of {comparison.rounds})\n"
        f"    largest difference from the reference in float64: {comparison.max_difference:.1e}"
    )


def _print_row(label: str, *cells: str) -> None:
    print(f"    {label:22}{''.join(cells)}")


# info


def _info(args: argparse.Namespace) -> None:
    """Print what was built and what it found on this machine."""
    from fastlstm import __version__, _core

    try:
        isa = _core.default_isa()
    except ValueError as error:  # FASTLSTM_ISA names one this machine lacks
        raise UserError(str(error)) from error
    facts: dict[str, Any] = {
        "version": __version__,
        "isa": isa,
        "isas": list(_core.available_isas()),
        "features": list(_core.cpu_features()),
        "threads": _core.get_num_threads(),
        "cache sizes": dict(_core.cache_sizes()),
        "compiler": _core.compiler(),
    }
    if args.json:
        print(json.dumps(facts, indent=2))
        return
    facts["isas"] = ", ".join(facts["isas"])
    facts["features"] = ", ".join(facts["features"]) or "none"
    caches = [f"{level} {size // 1024} KiB" for level, size in facts["cache sizes"].items()]
    facts["cache sizes"] = ", ".join(caches) or "unknown"
    for key, value in facts.items():
        print(f"{key + ':':13}{value}")


# bench


def _bench(arguments: list[str]) -> int:
    """Hand over to `fastlstm.bench`, a folder of its own outside this one in the sources."""
    bench = importlib.import_module("fastlstm.bench")
    return int(bench.main(arguments))
