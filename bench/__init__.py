"""The benchmark: ``python -m fastlstm bench``.

It compares fastlstm with its NumPy reference and with every installed peer on a grid of cells.
How that is done, and what the figures do not say, is told in ``docs/reference/benchmarks.md``.

One file a concern: ``grid`` (which cells), ``problem`` (their numbers), ``peers`` (one adapter a
file), ``threads`` (holding all to the same number), ``measure`` (interleaved timing), ``compare``
(one cell), ``precision`` (one cell in every precision), ``drop_in`` (one cell as a module of
PyTorch), ``load`` (several processes at once), ``limits`` (what the hardware allows), ``machine``
(what it ran on), ``report`` (table and JSON), ``picture``, ``markdown`` (the tables of the docs,
from JSON).  Commands of their own: ``accuracy``, ``whole_models``, ``long_training``.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fastlstm.cli._options import Parser, add_force, add_json

if TYPE_CHECKING:
    from . import load
    from .grid import Cell
    from .peers import Contestant

__all__ = ["main"]

_EPILOG = """\
The exit code is 1 if contestants disagree by more than rounding, 2 for bad arguments.
Peers are installed with: pip install "fastlstm[bench]"
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = Parser(
        prog="fastlstm bench",
        description="Compare fastlstm with its NumPy reference and every installed peer.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--grid",
        default="short",
        help="short (default; about a minute), full, training, variants, training-variants, "
        "precision, torch or load",
    )
    add(
        "--cell",
        action="append",
        default=[],
        metavar="NAME",
        help="only this cell; may be a pattern such as 'lstm-T1-*', and may be repeated",
    )
    add("--list", action="store_true", help="print the names of the cells and stop")
    add(
        "--threads",
        metavar="N",
        help="threads of every contestant, or 'all' (default: 1; of the grid load: all)",
    )
    add(
        "--rounds",
        type=int,
        metavar="N",
        help="rounds per cell (default: 15; slow contestants take part in fewer; of load: 5)",
    )
    add(
        "--processes",
        type=int,
        default=2,
        metavar="N",
        help="load: processes that call at the same time (default: 2)",
    )
    add(
        "--busy",
        type=int,
        default=1,
        metavar="N",
        help="load: processes that compute beside them, in half of the turns (default: 1)",
    )
    add(
        "--seconds",
        type=float,
        default=1.0,
        metavar="S",
        help="load: length of a turn (default: 1)",
    )
    add("--peers", metavar="A,B", help="only these peers (default: all that are installed)")
    add_json(parser)
    add("-o", "--output", type=Path, metavar="FILE", help="write the figures to FILE, as JSON")
    add("--plot", type=Path, metavar="FILE", help="draw them into FILE (.png, .svg or .pdf)")
    add_force(parser)
    return parser


def _command(args: argparse.Namespace) -> str:
    """Give a command that measures the same again; output files are no part of that."""
    words = ["python", "-m", "fastlstm", "bench", "--grid", args.grid]
    for pattern in args.cell:
        words += ["--cell", pattern]
    words += ["--threads", args.threads, "--rounds", str(args.rounds)]
    if args.grid == "load":
        words += ["--processes", str(args.processes), "--busy", str(args.busy)]
        words += ["--seconds", f"{args.seconds:g}"]
    if args.peers is not None:
        words += ["--peers", args.peers]
    return shlex.join(words)


def _run(
    args: argparse.Namespace,
    cells: Sequence[Cell],
    installed: Sequence[Contestant],
    missing: Sequence[Contestant],
    count: int,
    processors: tuple[int, ...] | None,
) -> int:
    """Measure, print, write; in the process that has the right environment."""
    from . import compare, drop_in, limits, machine, precision, report
    from .compare import Settings

    own = {"precision": precision, "torch": drop_in}.get(args.grid)
    measure_cell = (own or compare).measure_cell
    # With several threads, those that idle spin for some milliseconds after a call.
    settings = Settings(count, args.rounds, pause_seconds=0.01 if count > 1 else 0.0)
    described = machine.describe()
    print("measuring the limits of the hardware", file=sys.stderr, flush=True)
    measured_limits = limits.measure_limits()
    results = []
    for number, cell in enumerate(cells, 1):
        print(f"[{number}/{len(cells)}] {cell.name}", file=sys.stderr, flush=True)
        results.append(measure_cell(cell, installed, settings))
    found = report.Report(
        command=_command(args),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        grid=args.grid,
        machine=described,
        settings=settings,
        limits=measured_limits,
        pinned_to=processors,
        peers=installed,
        missing=missing,
        results=results,
    )
    writer = own or report
    text = report.as_json(writer.as_dict(found))
    print(text if args.json else writer.table(found))
    if args.output:
        report.write_file(args.output, text.encode(), args.force)
    if args.plot:
        from . import picture

        drawn = picture.draw(found, args.plot.suffix[1:].lower())
        report.write_file(args.plot, drawn, args.force)
    return 0 if found.agreed else 1


def _run_load(
    args: argparse.Namespace,
    cells: Sequence[Cell],
    installed: Sequence[Contestant],
    missing: Sequence[Contestant],
    settings: load.Settings,
    processors: tuple[int, ...] | None,
) -> int:
    """Measure several processes at once, print, write."""
    from . import load, machine, report

    results: list[load.Result] = []
    left_out: list[str] = []
    for number, cell in enumerate(cells, 1):
        print(f"[{number}/{len(cells)}] {cell.name}", file=sys.stderr, flush=True)
        measured, reasons = load.measure_cell(cell, installed, settings)
        results += measured
        left_out += reasons
    found = load.Report(
        command=_command(args),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine.describe(),
        settings=settings,
        pinned_to=processors,
        missing=missing,
        results=results,
        left_out=left_out,
    )
    written = load.as_dict(found)
    text = report.as_json(written)
    print(text if args.json else load.table(found))
    if args.output:
        report.write_file(args.output, text.encode(), args.force)
    return 0 if written["agreed"] else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark's command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the command's name; by default those of the process.

    Returns
    -------
    int
        0; 1 if contestants disagreed; that of the child process that measures, if it is
        interrupted or loses its output.

    Raises
    ------
    SystemExit
        With code 2, after a message, for arguments that make no sense.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    from . import grid, load, peers, picture, report, threads

    parser = make_parser()
    args = parser.parse_args(argv)
    under_load = args.grid == "load"
    args.threads = args.threads or ("all" if under_load else "1")
    args.rounds = (5 if under_load else 15) if args.rounds is None else args.rounds
    try:
        cells = grid.select(args.grid, args.cell)
        installed, missing = peers.select(
            args.peers, peers.PEERS_OF_GRIDS.get(args.grid, peers.PEERS)
        )
        count = threads.parse_count(args.threads)
        if args.rounds < 1:
            raise ValueError(f"rounds must be at least 1, got {args.rounds}")
        for path in filter(None, (args.output, args.plot)):
            report.check_target(path, args.force)
        if under_load:
            settings = load.Settings(count, args.processes, args.busy, args.seconds, args.rounds)
        if args.plot:
            if under_load:
                raise ValueError("--plot draws ratios of times, and the grid load has none")
            if args.grid in peers.PEERS_OF_GRIDS:
                raise ValueError(
                    f"--plot draws one ratio a peer, and the grid {args.grid} has more"
                )
            picture.check_format(args.plot)
            if not installed:
                raise ValueError("--plot draws the ratio to the peers, but there is none")
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    if args.list:
        print("\n".join(f"{cell.name}  {cell.note}".rstrip() for cell in cells))
        return 0
    if under_load:
        with threads.pinned(count) as processors:
            return _run_load(args, cells, installed, missing, settings, processors)
    if not threads.environment_is_set(count):
        return threads.run_in_child(argv, count)
    with threads.pinned(count) as processors:
        return _run(args, cells, installed, missing, count, processors)
