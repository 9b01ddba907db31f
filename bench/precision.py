"""The grid ``precision``: time and error of every contestant in every precision that it has.

fastlstm takes part in float32, 24, 16 and 8 bits, each peer as it computes by default and in the
low precisions that it has.  Their results can't be the same, so each is held to a bound of its own
precision, which tells a wrong result from rounding, and its error from float64 is written beside
its time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fastlstm import reference

from . import report
from .compare import Built, CellResult, Entry, Settings, sample
from .grid import Cell
from .peers import OURS, OURS_IN_BITS, Contestant
from .problem import Arrays, Problem, difference, make_problem

#: The peer that 8 bits are held against beside the best one: the better of its two quantisers.
_INT8 = ("onnxruntime-int8", "onnxruntime-int8-channel")

_LOW = [ours.name for ours in OURS_IN_BITS.values()]

NOTE = """\
Times are microseconds per call: median of rounds.  Best peer: the fastest of any precision.  The
columns after it are ratios of its time, of that of fastlstm in float32, and of the better one of
ONNX Runtime's models in 8 bits, over fastlstm's in so many bits: medians of per-round ratios,
in bold where fastlstm lost.  Errors are the largest difference of y from float64 and the root mean
square of all."""


def _in_float64(problem: Problem) -> Arrays:
    """y, h_n and c_n of the reference, from the same numbers."""
    state = (problem.h_0, problem.c_0)
    y, (h_n, c_n) = reference.forward(problem.x, state, problem.parameters, dtype=np.float64)
    return y, h_n, c_n


def _error(got: Arrays, exact: Arrays) -> tuple[float, float]:
    off = got[0].astype(np.float64) - exact[0]
    return float(np.max(np.abs(off))), float(np.sqrt(np.mean(off**2)))


def measure_cell(cell: Cell, peers: Sequence[Contestant], settings: Settings) -> CellResult:
    """Measure fastlstm and the peers on one cell, in every precision, beside their errors."""
    problem = make_problem(cell)
    contestants = (OURS, *OURS_IN_BITS.values(), *peers)
    built = Built.of(contestants, problem, settings.threads)
    exact = _in_float64(problem)
    found = {
        name: Entry(
            [], 0, difference(built.arrays[name], exact), error=_error(built.arrays[name], exact)
        )
        for name in built.runners
    }
    built.arrays.clear()
    plans, samples = sample(built.runners, settings)
    bounds = {contestant.name: contestant.bound for contestant in contestants}
    entries = {
        name: replace(entry, samples=samples[name], inner=plans[name].inner, bound=bounds[name])
        for name, entry in found.items()
    }
    return CellResult(cell, entries, built.left_out, base="float64")


def _ratios(result: CellResult) -> dict[str, dict[str, list[float]]]:
    """How much faster fastlstm is, in each number of bits, than whom it is held against."""
    times = {name: entry.time.median for name, entry in result.entries.items()}
    rivals = {"best_peer": result.best_peer, "float32": OURS.name}
    rivals["int8"] = min((n for n in _INT8 if n in times), key=lambda n: times[n], default=None)
    return {
        ours: {
            key: [ratio.median, ratio.q1, ratio.q3]
            for key, rival in rivals.items()
            if (ratio := result.ratio(rival, ours)) is not None
        }
        for ours in _LOW
        if ours in times
    }


def as_dict(found: report.Report) -> dict[str, Any]:
    """Put the report in plain containers, as of other grids, with errors and ratios beside."""
    written: dict[str, Any] = report.as_dict(found)
    measured = (OURS, *OURS_IN_BITS.values(), *found.peers)
    written["threads_held_by"] = {one.name: one.threads for one in measured}
    for cell, result in zip(written["cells"], found.results, strict=True):
        for name, entry in result.entries.items():
            error = list(entry.error or ())
            cell["contestants"][name].pop("fastlstm_ratio", None)  # ratios are those below
            # JSON has neither infinity nor NaN.
            cell["contestants"][name]["error"] = error if np.all(np.isfinite(error)) else None
        cell["ratios"] = _ratios(result)
    lost = {
        ours: [cell["name"] for cell in written["cells"] if _lost(cell["ratios"].get(ours, {}))]
        for ours in _LOW
    }
    written["summary"] = {"cells": len(written["cells"]), "lost": lost}
    return written


def _lost(ratios: Mapping[str, list[float]]) -> bool:
    """Whether the best peer is faster, and it is no draw: its third quartile is below 1."""
    return "best_peer" in ratios and ratios["best_peer"][2] < 1.0


# --- tables, of what as_dict made ---------------------------------------------------------------


def _names(cells: Sequence[Any]) -> list[str]:
    """Contestants that have a figure in some cell, in their order."""
    return list(dict.fromkeys(name for cell in cells for name in cell["contestants"]))


def microseconds(entry: Any) -> str:
    """Median time of a contestant; a dash for none."""
    if entry is None:
        return "-"
    value = entry["seconds"][0] * 1e6
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _ratio(ratios: Mapping[str, list[float]], key: str) -> str:
    if key not in ratios:
        return "-"
    median, _, q3 = ratios[key]
    return f"{median:.2f}" if q3 >= 1.0 else f"**{median:.2f}**"


def _power(value: float) -> str:
    """Two digits and a power of ten without zeros: 1.2e-3."""
    digits, power = f"{value:.1e}".split("e")
    return f"{digits}e{int(power)}"


def times(written: Mapping[str, Any]) -> list[list[str]]:
    """Header and rows of the table of times and ratios."""
    cells = written["cells"]
    names = _names(cells)
    columns = [(key, ours) for key in ("best_peer", "float32") for ours in _LOW]
    columns.append(("int8", _LOW[-1]))
    words = {"best_peer": "best peer", "float32": "float32", "int8": "onnxruntime int8"}
    bits = {ours.name: str(bits) for bits, ours in OURS_IN_BITS.items()}
    header = ["cell", *names, "best peer"]
    table = [[*header, *(f"{words[key]} / {bits[ours]}" for key, ours in columns)]]
    for cell in cells:
        mark = " (!)" if cell["disturbed"] else ""
        row = [cell["name"] + mark]
        row += [microseconds(cell["contestants"].get(name)) for name in names]
        row.append(cell["best_peer"] or "-")
        row += [_ratio(cell["ratios"].get(ours, {}), key) for key, ours in columns]
        table.append(row)
    return table


def errors(written: Mapping[str, Any]) -> list[list[str]]:
    """Header and rows of the table of errors: largest / root mean square."""
    names = _names(written["cells"])
    table = [["cell", *names]]
    for cell in written["cells"]:
        found = [cell["contestants"].get(name) for name in names]
        table.append(
            [cell["name"], *("-" if one is None else _both(one["error"]) for one in found)]
        )
    return table


def _both(error: Sequence[float] | None) -> str:
    return "not finite" if error is None else " / ".join(map(_power, error))


def table(found: report.Report) -> str:
    """Heading, both tables, notes and verdicts, as printed."""
    written = as_dict(found)
    (head, *rows), (error_head, *error_rows) = times(written), errors(written)
    lines = [*report.heading(found), "", *report.aligned(head, rows), "", NOTE, ""]
    lines += [*report.aligned(error_head, error_rows), ""]
    lines += [*report.reasons(found.results), *report.verdicts(found)]
    return "\n".join(lines)
