"""The learning curve as a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence

from fastlstm._extras import import_for
from fastlstm.training.trainer import Epoch


def plot_history(
    history: Sequence[Epoch], path: str | os.PathLike[str], *, label: str = "loss"
) -> None:
    """Draw the losses of a run over its epochs; the suffix of ``path`` chooses the format.

    Parameters
    ----------
    history : sequence of Epoch
        At least one, as in `Trainer.history`.
    path : str or path
        ``.png``, ``.svg``, ``.pdf`` or what else matplotlib writes.
    label : str
        What the losses are, and their unit: of the axis.

    Raises
    ------
    ImportError
        When matplotlib is missing; the message names the extra that brings it.
    ValueError
        When the suffix is none that matplotlib writes.
    """
    Figure = import_for("a picture", "matplotlib.figure", "cli", "matplotlib").Figure
    epochs = range(1, len(history) + 1)
    figure = Figure(figsize=(8.0, 5.0), layout="constrained")
    axes = figure.subplots()
    axes.plot(epochs, [e.training.loss for e in history], ".-", label="training")
    validation = [e.validation.loss for e in history if e.validation is not None]
    if validation:
        axes.plot(epochs, validation, ".-", label="validation")
        best = min(validation)
        epoch = validation.index(best) + 1
        axes.axvline(epoch, color="black", linewidth=0.8, linestyle=":")
        axes.set_title(f"Least validation loss {best:.4g}, epoch {epoch}")
    axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130)
