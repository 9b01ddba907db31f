"""The picture: how much faster than each peer fastlstm is, cell by cell."""

from __future__ import annotations

import io
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from .compare import CellResult
from .peers import PEERS
from .report import Report, summary

# Okabe and Ito's colours, which colour-blind readers can tell apart, and a shape for each.
_LOOKS = dict(
    zip(
        PEERS, (("#0072B2", "o"), ("#E69F00", "s"), ("#009E73", "^"), ("#CC79A7", "D")), strict=True
    )
)
#: Ratios that may be labelled, the most useful ones first.
_TICKS = (
    *(1, 1.3, 1.1, 2, 1.05, 10, 100, 5, 0.9, 0.5, 0.1, 0.01, 1000, 1.01, 20, 50, 200, 500, 3),
    *(1.2, 0.95, 0.8, 0.7, 0.2, 0.05, 1.02, 1.03, 1.15, 0.99, 0.98, 1.5, 7, 30),
)
#: Logarithm of the ratio up to which the axis is logarithmic, of about 1.1.
_WIDE = 0.1
_FASTER, _SLOWER = "#d9ead3", "#f4cccc"


FORMATS = (".png", ".svg", ".pdf")


def check_format(path: Path) -> None:
    """Check, before anything is measured, that the picture can be made.

    Raises
    ------
    ValueError
        If the file's suffix is none of ``FORMATS``.
    ModuleNotFoundError
        If matplotlib is not installed; the message names the extra.
    """
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{path} must end in {', '.join(FORMATS)}")
    if find_spec("matplotlib") is None:
        raise ModuleNotFoundError(
            'matplotlib is not installed: pip install "fastlstm[cli]"', name="matplotlib"
        )


def _position(ratio: Any) -> Any:
    """Return where a ratio is on the axis: its logarithm, in which small ones are stretched.

    1.01 and 1.3 are told apart beside 250: up to 1.1 it is the logarithm, from there on more and
    more the logarithm of that.
    """
    return np.arcsinh(np.log(np.maximum(ratio, 1e-9)) / _WIDE)


def _ratio_at(position: Any) -> Any:
    return np.exp(_WIDE * np.sinh(position))


def ticks(low: float, high: float) -> list[float]:
    """Return ratios to label between two, so many that they never touch."""
    kept: list[float] = []
    room = (_position(high) - _position(low)) / 26
    for value in _TICKS:
        near = (abs(_position(value) - _position(other)) for other in kept)
        if low <= value <= high and min(near, default=room) >= room:
            kept.append(value)
    return sorted(kept)


def _label(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _draw_cell(axes: Any, position: int, result: CellResult) -> None:
    """One row: a bar from 1 to the best peer, a mark for each peer, whiskers at the quartiles."""
    best = result.ratio(result.best_peer)
    if best is None:
        return
    axes.barh(
        position,
        best.median - 1.0,
        left=1.0,
        height=0.62,
        zorder=2,
        color=_FASTER if best.median >= 1.0 else _SLOWER,
    )
    for name in result.peers:
        ratio = result.ratio(name)
        if ratio is None:
            continue
        colour, shape = _LOOKS[name]
        axes.plot((ratio.q1, ratio.q3), (position, position), color=colour, lw=1.2, zorder=3)
        axes.plot(
            ratio.median, position, shape, color=colour, ms=6.5, mec="white", mew=0.6, zorder=4
        )


def _scale_ratios(axes: Any, results: list[CellResult]) -> None:
    """Let the axis of ratios reach as far as the whiskers do."""
    ticker: Any = import_module("matplotlib.ticker")
    axes.set_xscale("function", functions=(_position, _ratio_at))
    edges = [
        edge for r in results for name in r.peers if (s := r.ratio(name)) for edge in (s.q1, s.q3)
    ]
    ends = _position(np.array([min(0.93, *edges), max(1.25, *edges)]))
    low, high = _ratio_at(ends + np.ptp(ends) * np.array([-0.03, 0.03]))
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(ticker.FixedLocator(ticks(low, high)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.set_xlabel(
        "time of the peer / time of fastlstm   (log scale, wider near 1; right of 1: fastlstm is "
        "faster)"
    )


def _name_rows(axes: Any, results: list[CellResult]) -> None:
    """Put cells on the left of their rows, and the ratios to their best peers on the right."""
    axes.set_ylim(len(results) - 0.4, -0.6)
    axes.set_yticks(
        range(len(results)), [r.cell.name for r in results], family="monospace", fontsize=9
    )
    right = axes.secondary_yaxis("right")
    bests = [ratio.median for r in results if (ratio := r.ratio(r.best_peer))]
    right.set_yticks(range(len(results)), [_label(value) for value in bests], fontsize=9)
    for text, value in zip(right.get_yticklabels(), bests, strict=True):
        text.set_color("black" if value >= 1.0 else "#b00000")
        text.set_fontweight("normal" if value >= 1.0 else "bold")
    right.set_ylabel("against the best peer", fontsize=9)
    right.tick_params(length=0)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.88", lw=0.8, zorder=0)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
        right.spines[side].set_visible(False)


def _explain_marks(figure: Any, report: Report, results: list[CellResult]) -> None:
    """Tell below which peer has which mark."""
    lines: Any = import_module("matplotlib.lines")
    present = [name for name in PEERS if any(name in r.entries for r in results)]
    handles = [
        lines.Line2D(
            [],
            [],
            color=_LOOKS[name][0],
            marker=_LOOKS[name][1],
            ls="none",
            ms=6.5,
            label=f"{name} {report.machine.packages.get(name, '')}".strip(),
        )
        for name in present
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9
    )


def draw(report: Report, file_format: str = "png") -> bytes:
    """Draw the report.

    Parameters
    ----------
    report : Report
        At least one cell must have been measured with a peer.
    file_format : str
        ``"png"``, ``"svg"`` or ``"pdf"``.

    Returns
    -------
    bytes
        The file's content.

    Raises
    ------
    ValueError
        If there is nothing to draw.
    """
    # Figure and canvas without pyplot: no window system, no global state.
    figure_type: Any = import_module("matplotlib.figure").Figure
    canvas_type: Any = import_module("matplotlib.backends.backend_agg").FigureCanvasAgg

    results = [r for r in report.results if r.best_peer is not None]
    if not results:
        raise ValueError("there is no peer in any cell, so there is no ratio to draw")

    figure = figure_type(figsize=(9.0, 2.1 + 0.29 * len(results)), layout="constrained")
    canvas_type(figure)
    axes = figure.add_subplot()
    for position, result in enumerate(results):
        _draw_cell(axes, position, result)
    axes.axvline(1.0, color="black", lw=1.2, zorder=5)

    _scale_ratios(axes, results)
    _name_rows(axes, results)
    _explain_marks(figure, report, results)
    found = summary(results)
    count = report.settings.threads
    axes.set_title(
        f"fastlstm {report.machine.packages['fastlstm']} against its peers, "
        f"{count} thread{'s' if count > 1 else ''}: geometric mean {found['geometric_mean']:.2f}\n"
        f"{report.machine.cpu}, {report.machine.isa}",
        fontsize=10,
        loc="left",
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format=file_format, dpi=144)
    return buffer.getvalue()
