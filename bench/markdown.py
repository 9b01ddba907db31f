"""The tables of ``docs/reference/benchmarks.md``, from a file that ``--output`` wrote.

``python -m fastlstm.bench.markdown FILE`` prints one: the command, the limits of the hardware, the
summary, and a row for each cell; of the grid ``precision`` two, of times and of errors.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastlstm.cli._options import Parser

from . import drop_in, load, precision
from .peers import OURS, PEERS, REFERENCE
from .report import SCHEMA, aligned


def _row(cell: Any, names: Sequence[str], training: bool, variants: bool) -> list[str]:
    found = cell["contestants"]
    ours, best = found[OURS.name], cell["best_peer"]
    gigabytes = ours["weight_gb_per_s"] if cell["B"] == 1 else None
    row = [cell["name"], *(precision.microseconds(found.get(name)) for name in names)]
    row.append(f"{ours['gflop_per_s']:.0f}")
    if not training:
        row.append("-" if gigabytes is None else f"{gigabytes:.0f}")
    mark = " (!)" if cell.get("disturbed") else ""  # there were files that don't say
    row += [f"{100 * cell['share_of_limit']:.0f}%{mark}", best or "-"]
    if best is None:
        row.append("-")
    else:
        ratio, _, q3 = found[best]["fastlstm_ratio"]
        text = f"{ratio:.2f}"
        row.append(text if ratio >= 1.0 else f"{text} draw" if q3 >= 1.0 else f"**{text}**")
    if training:
        row.append(f"{100 * cell['repacking'][0]:.2f}%")
    if variants:
        over = cell["over_vanilla"]
        row += [cell["vanilla"] or "-", f"{over[0]:.2f}" if over else "-"]
    return row


def _summary(report: Any) -> str:
    limits, found = report["limits"], report["summary"]
    peaks = limits["flops"]
    text = (
        f"Limits of one thread in this run: {peaks['float32'] / 1e9:.0f} GFLOP/s in float32, "
        f"{peaks['float64'] / 1e9:.0f} in float64"
    )
    if limits["levels"]:
        reads = ", ".join(f"{name} {rate / 1e9:.0f}" for name, _, rate in limits["levels"])
        text += f"; reading in GB/s: {reads}"
    if found["cells"]:
        text += (
            f". Geometric mean of the ratio to the best peer {found['geometric_mean']:.2f}, "
            f"least {found['least']:.2f} ({found['least_cell']}); "
            f"{len(found['lost']) or 'none'} of {found['cells']} cells lost"
            + (f", {len(found['drawn'])} a draw" if found.get("drawn") else "")
        )
    return text + "."


def _markdown(header: Sequence[str], *body: Sequence[str]) -> list[str]:
    """A table as it stands in a page, not aligned."""
    rule = "|".join("---" if name in ("cell", "best peer", "vanilla") else "--:" for name in header)
    return [f"| {' | '.join(header)} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in body)]


def section(report: Any) -> str:
    """Command, summary and table of a report as ``as_dict`` makes it."""
    if report["grid"] == "load":
        header, *body = load.rows(report)
        return "\n".join([f"`{report['command']}`", "", *aligned(header, body)])
    if report["grid"] == "precision":
        times, errors = precision.times(report), precision.errors(report)
        lines = [f"`{report['command']}`", "", *_markdown(*times), "", *_markdown(*errors)]
        return "\n".join(lines)
    if report["grid"] == "torch":
        lines = [f"`{report['command']}`", "", *drop_in.summary(report), ""]
        return "\n".join([*lines, *_markdown(*drop_in.rows(report))])
    cells = report["cells"]
    training = any(cell.get("training", False) for cell in cells)
    # The reference last; who has no figure in any cell is left out.
    names = [OURS.name, *PEERS, REFERENCE.name]
    names = [name for name in names if any(name in cell["contestants"] for cell in cells)]
    header = ["cell", f"{OURS.name}, µs", *names[1:], "GFLOP/s", "GB/s"]
    header += ["of the limit", "best peer", "ratio"]
    if training:
        header.remove("GB/s")
        header.append("repack")
    variants = any(cell.get("vanilla") for cell in cells)
    header += ["vanilla", "over vanilla"] if variants else []
    body = [_row(cell, names, training, variants) for cell in cells]
    lines = [f"`{report['command']}`", "", _summary(report), "", *_markdown(header, *body)]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the section of a file."""
    parser = Parser(prog="python -m fastlstm.bench.markdown", description=__doc__)
    parser.add_argument("file", type=Path, help="written by --output")
    args = parser.parse_args(argv)
    report = json.loads(args.file.read_text())
    if report["schema"] != SCHEMA:
        parser.error(f"{args.file} has schema {report['schema']}, expected {SCHEMA}")
    print(section(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
