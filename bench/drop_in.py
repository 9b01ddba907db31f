"""The grid ``torch``: ``fastlstm.torch.LSTM`` in place of ``torch.nn.LSTM``, both eager.

Three take turns in every cell: PyTorch's module, ours by the same calls, and our layer called from
NumPy, which tells what being a module of PyTorch costs.  In inference ours takes part once more,
frozen: else it compares its parameters with those that it packed in each call.  In training the
call from NumPy begins with ``load_parameters``, as a step of an optimiser asks for: the module
packs its parameters anew in every call with gradients, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from . import report
from .compare import Built, CellResult, Entry, Settings, sample
from .grid import Cell
from .measure import Spread, geometric_mean, ratios
from .peers import DROP_IN, OURS, PEERS, Contestant
from .precision import microseconds
from .problem import difference, make_problem

#: Our layer as a module of PyTorch is held against: a new result each call, from given states.
NUMPY = replace(OURS, options={"steps_in_place": False, "repacks": True})

_NN = PEERS["torch"].name

NOTE = """\
Times are microseconds per call: median of rounds.  fastlstm is called from NumPy.  Ratio: time of
torch.nn.LSTM over fastlstm.torch.LSTM's, median of per-round ratios, in bold where ours lost.  Over
NumPy: microseconds that a call takes longer than from NumPy, median of per-round differences."""


def measure_cell(cell: Cell, peers: Sequence[Contestant], settings: Settings) -> CellResult:
    """Measure both modules, and our layer called from NumPy, on one cell."""
    built = Built.of((NUMPY, *peers), make_problem(cell), settings.threads)
    base = built.arrays[NUMPY.name]
    differences = {name: difference(got, base) for name, got in built.arrays.items()}
    built.arrays.clear()
    plans, samples = sample(built.runners, settings)
    entries = {
        name: Entry(samples[name], plans[name].inner, differences[name]) for name in built.runners
    }
    return CellResult(cell, entries, built.left_out, base=NUMPY.name)


def _spread(values: Sequence[float]) -> list[float]:
    found = Spread.of(values)
    return [found.median, found.q1, found.q3]


def _compared(result: CellResult) -> dict[str, list[float]]:
    """How the module does beside PyTorch's, as a ratio, and beside NumPy's call, in seconds."""
    samples = {name: entry.samples for name, entry in result.entries.items()}
    if DROP_IN.name not in samples:
        return {}
    ours = samples[DROP_IN.name]
    pairs = zip(ours, samples[NUMPY.name], strict=False)
    found = {"over_numpy": _spread([one - other for one, other in pairs])}
    if _NN in samples:
        found["ratio"] = _spread(ratios(samples[_NN], ours))
    return found


def as_dict(found: report.Report) -> dict[str, Any]:
    """Put the report in plain containers, as of other grids, with both comparisons beside."""
    written: dict[str, Any] = report.as_dict(found)
    written["threads_held_by"] = {one.name: one.threads for one in (OURS, *found.peers)}
    for cell, result in zip(written["cells"], found.results, strict=True):
        cell["compared"] = _compared(result)
    compared = {cell["name"]: cell["compared"] for cell in written["cells"]}
    both = {name: one["ratio"] for name, one in compared.items() if "ratio" in one}
    medians = {name: ratio[0] for name, ratio in both.items()}
    written["summary"] = {
        "cells": len(both),
        "geometric_mean": geometric_mean(list(medians.values())) if both else None,
        "least": min(medians.values(), default=None),
        "least_cell": min(medians, key=lambda name: medians[name], default=None),
        "lost": [name for name, ratio in both.items() if ratio[2] < 1.0],
    }
    return written


def rows(written: Mapping[str, Any]) -> list[list[str]]:
    """Header and rows of the table of what ``as_dict`` made."""
    names = list(dict.fromkeys(name for cell in written["cells"] for name in cell["contestants"]))
    table = [["cell", *names, "ratio", "over NumPy, µs"]]
    for cell in written["cells"]:
        mark = " (!)" if cell["disturbed"] else ""
        row = [cell["name"] + mark]
        row += [microseconds(cell["contestants"].get(name)) for name in names]
        compared = cell["compared"]
        if "ratio" in compared:
            ratio, _, q3 = compared["ratio"]
            row.append(f"{ratio:.2f}" if q3 >= 1.0 else f"**{ratio:.2f}**")
        else:
            row.append("-")
        row.append(f"{compared['over_numpy'][0] * 1e6:,.1f}" if compared else "-")
        table.append(row)
    return table


def summary(written: Mapping[str, Any]) -> list[str]:
    """Geometric mean, least ratio and lost cells, in a line; none where nothing was compared."""
    found = written["summary"]
    if not found["cells"]:
        return []
    text = (
        f"Geometric mean of the ratio {found['geometric_mean']:.2f}, least {found['least']:.2f} "
        f"({found['least_cell']}); {len(found['lost']) or 'none'} of {found['cells']} cells lost."
    )
    return [text]


def table(found: report.Report) -> str:
    """Heading, table, notes and verdicts, as printed."""
    written = as_dict(found)
    header, *body = rows(written)
    lines = [*report.heading(found), "", *report.aligned(header, body), "", NOTE]
    lines += [*report.reasons(found.results), *summary(written), *report.verdicts(found)]
    return "\n".join(lines)
