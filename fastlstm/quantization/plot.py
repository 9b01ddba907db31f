"""A report as a picture: errors over time and by layer."""

from __future__ import annotations

import os

from fastlstm._colours import LINES
from fastlstm._extras import import_for
from fastlstm.quantization.report import QuantizationReport


def plot_report(report: QuantizationReport, path: str | os.PathLike[str]) -> None:
    """Draw the errors of y over the steps, and those of each layer; the suffix chooses the format.

    Parameters
    ----------
    report : QuantizationReport
    path : str or path
        ``.png``, ``.svg``, ``.pdf`` or what else matplotlib writes.

    Raises
    ------
    ImportError
        When matplotlib is missing; the message names the extra that brings it.
    ValueError
        When the suffix is none that matplotlib writes.
    """
    Figure = import_for("a picture", "matplotlib.figure", "cli", "matplotlib").Figure
    figure = Figure(figsize=(10.0, 4.5), layout="constrained")
    over_time, by_layer = figure.subplots(1, 2, sharey=True)
    figure.suptitle(f"{report.layer}: difference from float32")

    edges = [report.over_time[0].start, *(part.stop for part in report.over_time)]
    for field, (colour, dashes, _) in zip(("largest", "rms"), LINES[:2], strict=True):
        values = [getattr(part.errors, field) for part in report.over_time]
        over_time.stairs(values, edges, label=field, baseline=None, color=colour, ls=dashes, lw=1.8)
    over_time.set_xlabel("step")
    over_time.set_ylabel("error of y")
    over_time.set_yscale("log")

    layers = range(len(report.layers))
    sides = zip(("own", "accumulated"), (-0.2, 0.2), LINES[:2], strict=True)
    for name, shift, (colour, *_) in sides:
        errors = [getattr(layer, name) for layer in report.layers]
        places = [layer + shift for layer in layers]
        rms = [error.rms for error in errors]
        by_layer.bar(places, rms, 0.4, label=f"{name}, rms", color=colour)
        by_layer.plot(places, [error.largest for error in errors], "k_", markersize=12)
    by_layer.plot([], [], "k_", label="largest")
    by_layer.set_xticks(layers)
    by_layer.set_xlabel("layer")
    by_layer.set_ylabel("error of the outputs of a layer")
    for axes in (over_time, by_layer):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=130)
