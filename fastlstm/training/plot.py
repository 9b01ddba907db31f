"""The learning curve as a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence

from fastlstm._extras import import_for
from fastlstm.plot import learning_curves
from fastlstm.training.history import Epoch


def plot_history(
    history: Sequence[Epoch],
    path: str | os.PathLike[str],
    *,
    label: str = "loss",
    title: str = "",
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
    title : str
        What was trained on what.

    Raises
    ------
    ImportError
        When matplotlib is missing; the message names the extra that brings it.
    ValueError
        When the suffix is none that matplotlib writes.
    """
    Figure = import_for("a picture", "matplotlib.figure", "cli", "matplotlib").Figure
    figure = Figure(figsize=(8.0, 5.0), layout="constrained")
    figure.suptitle(title)
    learning_curves({"": history}, unit=label, ax=figure.subplots())
    figure.savefig(path, dpi=130)
