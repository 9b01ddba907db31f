"""A report as people like to read it: a short table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fastlstm.quantization.measures import Errors, Range

if TYPE_CHECKING:
    from fastlstm.quantization.report import QuantizationReport

#: What the columns of errors are called.
_ERRORS = ("largest", "rms", "of spread")


def text_of(report: QuantizationReport) -> str:
    """Return a report as text of several lines."""
    lines = [report.layer, *_gains(report), "", *_layers(report), "", *_over_time(report)]
    lines += _answers(report)
    if report.left_out:
        lines += ["", f"  left out: {report.left_out:,} numbers of y that are not finite"]
    return "\n".join(lines)


def _gains(report: QuantizationReport) -> list[str]:
    before, after = report.bytes_before, report.bytes_after
    lines = [f"  size   {_bytes(before)} -> {_bytes(after)}, {after / before:.2f} of float32"]
    if (speed := report.speed) is not None:
        turns = speed.turns
        lines.append(
            f"  speed  {turns.ratio:.2f} times float32's: {_seconds(turns.before)} -> "
            f"{_seconds(turns.after)} for {speed.steps} steps of {_sequences(speed.batch)}"
        )
        threads = f"{speed.threads} thread{'s' * (speed.threads != 1)}"
        lines.append(f"         on {speed.machine}, {' -> '.join(speed.isas)}, {threads}")
    return lines


def _layers(report: QuantizationReport) -> list[str]:
    """Errors and times of y and of the layers of a stack, then what each uses of the integers."""
    several, timed = len(report.layers) > 1, report.speed is not None
    titles = list(_ERRORS)
    if several:
        titles += ["in stack", *(("speed", "of time") if timed else ())]
    lines = [_row("error from float32", titles)]
    times = [layer.turns.after for layer in report.layers if layer.turns is not None]
    for index, layer in enumerate(report.layers if several else ()):  # of one it is that of y
        cells = [*_errors(layer.own), _percent(layer.accumulated.relative)]
        if layer.turns is not None:
            cells += [f"{layer.turns.ratio:.2f}", _percent(layer.turns.after / sum(times))]
        lines.append(_row(f"layer {index} alone", cells))
    lines.append(_row("y", _errors(report.y)))
    if several:
        most = f"  most error: layer {report.least_accurate}"
        if report.slowest is not None:
            most += f"; most time: layer {report.slowest}"
        lines.append(most)
    lines += ["", _row("use of integers", list(Range._fields))]
    for index, layer in enumerate(report.layers):
        label = f"layer {index} " if several else ""
        x = ["in float32"] if layer.x is None else [_percent(share) for share in layer.x]
        lines.append(_row(f"{label}x", x))
        lines.append(_row(f"{label}h", [_percent(share) for share in layer.h]))
    return lines


def _over_time(report: QuantizationReport) -> list[str]:
    """Errors of y over parts of the steps."""
    lines = [_row("y by steps", list(_ERRORS))]
    for part in report.over_time:
        steps = f"{part.start} - {part.stop - 1}" if part.stop - part.start > 1 else str(part.start)
        lines.append(_row(steps, _errors(part.errors)))
    return lines


def _answers(report: QuantizationReport) -> list[str]:
    lines = []
    if report.answers is not None:
        lines.append(_row("answers", _errors(report.answers)))
    if (decisions := report.decisions) is not None:
        share = decisions.changed / decisions.total if decisions.total else 0.0
        lines.append(
            f"  decisions ({decisions.rule}): {decisions.changed:,} of {decisions.total:,} change, "
            f"{_percent(share)}"
        )
    if (metric := report.metric) is not None:
        lines.append(f"  {metric.name}: {metric.before:.6g} -> {metric.after:.6g}")
    return ["", *lines] if lines else []


def _errors(errors: Errors) -> list[str]:
    return [_figure(errors.largest), _figure(errors.rms), _percent(errors.relative)]


def _figure(number: float) -> str:
    return "-" if math.isnan(number) else f"{number:.1e}"


def _percent(share: float) -> str:
    """Return a share in per cent, with two digits that count."""
    if math.isnan(share):
        return "-"
    percent = 100 * share
    if percent == 0 or percent >= 9.95:
        return f"{percent:.0f}%"
    return f"{percent:.2g}%" if percent >= 0.001 else f"{percent:.0e}%"


def _row(label: str, cells: list[str]) -> str:
    return "".join([f"  {label:18}", *(f"{cell:>11}" for cell in cells)]).rstrip()


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def _sequences(batch: int) -> str:
    return f"{batch} sequence{'s' * (batch != 1)}"


def _seconds(seconds: float) -> str:
    for factor, unit in ((1e9, "ns"), (1e6, "us"), (1e3, "ms")):
        if seconds * factor < 999.5:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"
