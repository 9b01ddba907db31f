"""The table for people and the JSON for programs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .compare import CellResult, Settings
from .grid import Cell
from .limits import Limits
from .machine import Machine
from .measure import Spread, geometric_mean
from .peers import OURS, REFERENCE, Contestant

SCHEMA = 2
_DIGITS = 9  # of a figure in a file: more than any table shows
_EXTRA = 'pip install "fastlstm[bench]"'


@dataclass(frozen=True)
class Report:
    """Everything one run found.

    Attributes
    ----------
    command : str
        A command that measures the same again.
    date : str
        ISO 8601, UTC.
    grid : str
    machine : Machine
    settings : Settings
    limits : Limits
        What the hardware allows, measured in the same run.
    pinned_to : tuple of int or None
        Processors the process was pinned to; None where that is impossible.
    peers, missing : sequence of Contestant
        Peers measured, and those asked for but not installed.
    results : sequence of CellResult
    """

    command: str
    date: str
    grid: str
    machine: Machine
    settings: Settings
    limits: Limits
    pinned_to: tuple[int, ...] | None
    peers: Sequence[Contestant]
    missing: Sequence[Contestant]
    results: Sequence[CellResult]

    @property
    def agreed(self) -> bool:
        """Whether all contestants agreed in all cells."""
        return not any(result.disagreeing for result in self.results)


def _significant(value: float, digits: int = 3) -> str:
    """Plain decimal notation with at least ``digits`` significant digits."""
    if not math.isfinite(value) or value <= 0:
        return str(value)
    decimals = max(0, digits - 1 - math.floor(math.log10(value)))
    return f"{value:,.{decimals}f}"


def _time(spread: Spread) -> str:
    """Microseconds with half the distance of the quartiles."""
    return f"{_significant(spread.median * 1e6)} ±{100 * spread.relative:.0f}%"


def _ratio(spread: Spread | None) -> str:
    return "-" if spread is None else f"{spread.median:.2f}"


def _outcome(result: CellResult) -> str:
    """Return the ratio to the best peer: in bold where fastlstm lost, or with a word."""
    ratio = _ratio(result.ratio(result.best_peer))
    if result.drawn:
        return f"{ratio} draw"
    return f"**{ratio}**" if result.lost else ratio


def disturbances(result: CellResult, report: Report) -> list[str]:
    """Return why the figures of a cell are not to be trusted; empty if they are."""
    found = []
    if (share := _share_of_limit(result, report)) > 1:
        found.append(f"faster than the hardware allows, {100 * share:.0f}% of the limit")
    ours, ratio = result.entries[OURS.name].time, result.ratio(result.best_peer)
    if ours.is_wide:
        found.append(f"{OURS.name} ±{100 * ours.relative:.0f}%")
    if ratio is not None and ratio.is_wide:
        found.append(f"ratio to {result.best_peer} ±{100 * ratio.relative:.0f}%")
    return found


def _share_of_limit(result: CellResult, report: Report) -> float:
    """The least time that the hardware allows over fastlstm's time."""
    least = report.limits.seconds(result.cell, report.settings.threads)
    return least / result.entries[OURS.name].time.median


def _weight_gigabytes(cell: Cell, time: Spread) -> float | None:
    """GB/s of reading U; None in training, where it is not what a call consists of."""
    return None if cell.training else cell.recurrent_bytes / time.median / 1e9


def _row(result: CellResult, names: Sequence[str], report: Report, variants: bool) -> list[str]:
    cell, ours = result.cell, result.entries[OURS.name].time
    best = result.best_peer
    mark = " (!)" if disturbances(result, report) else ""
    # With a batch, U is read for many rows at once: no bandwidth to speak of.
    gigabytes = _weight_gigabytes(cell, ours) if cell.B == 1 else None
    return [
        cell.name,
        *(_time(result.entries[n].time) if n in result.entries else "-" for n in names),
        f"{cell.flops / ours.median / 1e9:.1f}",
        "-" if gigabytes is None else f"{gigabytes:.1f}",
        f"{100 * _share_of_limit(result, report):.0f}%{mark}",
        best or "-",
        _outcome(result),
        _ratio(result.ratio(REFERENCE.name)),
        f"{np.max([entry.difference for entry in result.entries.values()]):.0e}",
        *([f"{100 * result.repacking.median:.2f}%"] if result.repacking else []),
        *(
            [cell.vanilla.name if cell.vanilla else "-", _ratio(result.over_vanilla)]
            if variants
            else []
        ),
    ]


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned Markdown table; the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        first = row[0].ljust(widths[0])
        return "| " + " | ".join([first, *map(str.rjust, row[1:], widths[1:])]) + " |"

    rule = "|-" + "-" * widths[0] + "-|" + "|".join("-" * (w + 1) + ":" for w in widths[1:]) + "|"
    return [line(header), rule, *map(line, rows)]


def reasons(results: Sequence[CellResult]) -> list[str]:
    """Who was left out where, and why; one line a contestant and reason."""
    where: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for name, reason in result.left_out.items():
            where.setdefault((name, reason), []).append(result.cell.name)
    lines = []
    for (name, reason), cells in where.items():
        every = len(cells) == len(results) > 1
        lines.append(f"{name} left out of {'every cell' if every else ', '.join(cells)}: {reason}")
    return lines


def summary(results: Sequence[CellResult]) -> dict[str, object]:
    """Geometric mean, least ratio, lost cells and draws, over the cells that have a peer."""
    found = {
        r.cell.name: ratio.median for r in results if (ratio := r.ratio(r.best_peer)) is not None
    }
    return {
        "cells": len(found),
        "geometric_mean": geometric_mean(list(found.values())) if found else None,
        "least": min(found.values(), default=None),
        "least_cell": min(found, key=lambda name: found[name], default=None),
        "lost": [result.cell.name for result in results if result.lost],
        "drawn": [result.cell.name for result in results if result.drawn],
    }


def _bytes(count: int) -> str:
    return f"{count // 1048576} MiB" if count >= 1048576 else f"{count // 1024} KiB"


def _limits_in_words(limits: Limits) -> str:
    peaks = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in limits.flops.items())
    reads = ", ".join(f"{name} {rate / 1e9:.0f} GB/s" for name, _, rate in limits.levels)
    return f"limits of one thread: {peaks}; reading {reads or 'unknown'}"


def machine_in_words(machine: Machine) -> list[str]:
    """Processor, system and versions, a line each."""
    caches = ", ".join(f"{level} {_bytes(size)}" for level, size in machine.caches.items())
    family = f" ({machine.family})" if machine.family else ""
    return [
        f"{machine.cpu}{family}, {machine.processors} processors, {caches or 'caches unknown'}",
        f"{machine.system}, {machine.python}, fastlstm's C core: {machine.isa}, {machine.compiler}",
        ", ".join(f"{name} {number}" for name, number in machine.packages.items()),
    ]


def not_installed(missing: Sequence[Contestant]) -> list[str]:
    """Return a line for each peer that is missing."""
    return [
        f"{peer.name} left out: {peer.library} has to name its shared library"
        if peer.library in peer.missing
        else f"{peer.name} not installed (needs {', '.join(peer.missing)}): {_EXTRA}"
        for peer in missing
    ]


def heading(report: Report) -> list[str]:
    """Machine, versions, threads, limits, and who is missing."""
    count = report.settings.threads
    threads = f"{count} thread{'s' if count > 1 else ''} each, "
    if report.pinned_to is None:
        threads += "not pinned (this system can't)"
    else:
        threads += "pinned to processor " + ", ".join(map(str, report.pinned_to))
    lines = [
        *machine_in_words(report.machine),
        threads,
        _limits_in_words(report.limits),
    ]
    if report.pinned_to is None:
        lines += [
            f"{peer.name} can't be held to {count} threads here for certain"
            for peer in report.peers
            if not peer.switch
        ]
    return lines + not_installed(report.missing)


def table(report: Report) -> str:
    """Heading, Markdown table, notes and summary, as printed."""
    names = [OURS.name, REFERENCE.name, *(peer.name for peer in report.peers)]
    training = any(result.cell.training for result in report.results)
    header = ["cell", *names, "GFLOP/s", "GB/s", "limit", "best peer", "ratio", "vs numpy"]
    header += ["max diff", "repack"] if training else ["max diff"]
    variants = any(result.over_vanilla for result in report.results)
    header += ["vanilla", "over vanilla"] if variants else []
    lines = [*heading(report), ""]
    lines += aligned(header, [_row(result, names, report, variants) for result in report.results])
    lines += [
        "",
        "Times are microseconds per call: median of rounds, ±half the quartile distance.",
        "GFLOP/s and GB/s (reading U, batch 1 only) are fastlstm's.  Limit: the least time that",
        "the hardware allows, without activations, over fastlstm's.  Ratio: time of the best",
        "peer over fastlstm's, median of per-round ratios; in bold where fastlstm lost, a draw",
        "where the quartiles of such a ratio include 1.  (!): a disturbed measurement.",
        "Max diff: largest difference of any contestant's results from the reference's, relative",
        "to their scale.  Peers compute at their default precision, but for openvino, which is",
        "held to that of the cell: --grid precision has its default, and what others have below.",
    ]
    if training:
        lines += [
            "Training: forward and backward pass with all gradients.  The limit is the products of",
            "both at the peak of the multiply-adds.  Repack: time of load_parameters over that of",
            "fastlstm's call, which does not include it.",
        ]
    if variants:
        lines += [
            "Over vanilla: fastlstm's time over its time with a usual LSTM, one that has the same",
            "sizes (for a projection, as many operations; for different lengths, their mean).",
        ]
    lines += reasons(report.results)
    found = summary(report.results)
    if found["cells"]:
        lost, drawn = found["lost"], found["drawn"]
        assert isinstance(lost, list)
        assert isinstance(drawn, list)
        draws = f", {len(drawn)} a draw" if drawn else ""
        lines.append(
            f"Geometric mean of the ratio {found['geometric_mean']:.2f}, least "
            f"{found['least']:.2f} ({found['least_cell']}), "
            f"{len(lost)} of {found['cells']} cells lost{draws}."
        )
    lines += verdicts(report)
    return "\n".join(lines)


def verdicts(report: Report) -> list[str]:
    """Which measurements were disturbed, and whether the results agree."""
    lines = [
        f"DISTURBED measurement of {result.cell.name}: {', '.join(found)}; measure again"
        for result in report.results
        if (found := disturbances(result, report))
    ]
    lines += [
        f"DISAGREEMENT in {result.cell.name}: {name} differs from {result.base} by "
        f"{result.entries[name].difference:.1e}, more than {result.bound(name):.0e}"
        for result in report.results
        for name in result.disagreeing
    ]
    if report.agreed:
        lines.append("All results agree.")
    return lines


def _cell_as_dict(result: CellResult, report: Report) -> dict[str, object]:
    cell = result.cell

    def spread(value: Spread | None) -> list[float] | None:
        return None if value is None else [value.median, value.q1, value.q3]

    contestants: dict[str, dict[str, object]] = {
        name: {
            "seconds": spread(entry.time),
            "rounds": len(entry.samples),
            "inner": entry.inner,
            # JSON has neither infinity nor NaN.
            "difference": entry.difference if math.isfinite(entry.difference) else None,
        }
        for name, entry in result.entries.items()
    }
    for name, figures in contestants.items():
        if name != OURS.name:
            figures["fastlstm_ratio"] = spread(result.ratio(name))
    ours = result.entries[OURS.name].time
    contestants[OURS.name] |= {
        "gflop_per_s": cell.flops / ours.median / 1e9,
        "weight_gb_per_s": _weight_gigabytes(cell, ours),
    }
    return {
        "name": cell.name,
        **asdict(cell),
        "options": dict(cell.options),
        "flops": cell.flops,
        "recurrent_bytes": cell.recurrent_bytes,
        "contestants": contestants,
        "share_of_limit": _share_of_limit(result, report),
        "left_out": result.left_out,
        "base": result.base,
        "repacking": spread(result.repacking),
        "vanilla": cell.vanilla.name if cell.vanilla else None,
        "over_vanilla": spread(result.over_vanilla),
        "disagreeing": result.disagreeing,
        "disturbed": disturbances(result, report),
        "best_peer": result.best_peer,
    }


def as_dict(report: Report) -> dict[str, object]:
    """Put the report in plain containers: seconds, and ratios of their time to fastlstm's.

    What was measured more than once is ``[median, first quartile, third quartile]``.
    """
    measured = (OURS, REFERENCE, *report.peers)
    return {
        "schema": SCHEMA,
        "command": report.command,
        "date": report.date,
        "grid": report.grid,
        "machine": report.machine.as_dict(),
        "settings": asdict(report.settings),
        "limits": asdict(report.limits),
        "pinned_to": None if report.pinned_to is None else list(report.pinned_to),
        "threads_held_by": {one.name: one.threads for one in measured},
        "not_installed": [peer.name for peer in report.missing],
        "cells": [_cell_as_dict(result, report) for result in report.results],
        "summary": summary(report.results),
        "agreed": report.agreed,
    }


def _rounded(value: Any) -> Any:
    """Round each float in plain containers to the digits that a file has."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value


def as_json(report: dict[str, object]) -> str:
    """Write what ``as_dict`` made, one line for each cell, so that versions can be compared."""

    def line(value: object) -> str:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)

    entries = []
    for key, value in _rounded(report).items():
        text = "[\n" + ",\n".join(map(line, value)) + "\n]" if key == "cells" else line(value)
        entries.append(f"{line(key)}:{text}")
    return "{\n" + ",\n".join(entries) + "\n}\n"


def check_target(path: Path, force: bool) -> None:
    """Refuse, before anything is measured, a file that could not be written afterwards.

    Raises
    ------
    FileExistsError
        If the file exists and ``force`` is false.
    FileNotFoundError, IsADirectoryError
        If its folder does not exist, or it is a folder itself.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder of {path} does not exist")
    if path.exists() and not force:
        raise FileExistsError(f"{path} exists; --force overwrites it")


def write_file(path: Path, content: bytes, force: bool) -> None:
    """Write a file in one piece: either all of it is there in the end, or nothing.

    Raises
    ------
    FileExistsError
        If the file exists by now and ``force`` is false.
    """
    check_target(path, force)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
